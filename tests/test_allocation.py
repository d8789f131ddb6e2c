"""Claims about who gets what on a cluster: nothing may wait for ever."""

import pytest

from orchestrator.cluster.allocation import Bundle, Node, allocate
from orchestrator.errors import UserError
from orchestrator.spec import ResourcesSpec


def wanted(**settings: object) -> ResourcesSpec:
    return ResourcesSpec.model_validate(settings)


@pytest.mark.parametrize(("cpus", "slots", "evaluators"), [(2, 1, 1), (4, 3, 1), (16, 12, 4), (64, 48, 16)])
def test_auto_fills_one_machine(cpus: int, slots: int, evaluators: int) -> None:
    found = allocate(wanted(), [Node(cpus, 0)])
    assert (found.slots, found.evaluators) == (slots, evaluators)
    assert found.slots * found.trial.cpus + found.evaluators * found.evaluator.cpus <= cpus


def test_auto_shares_a_single_core() -> None:
    found = allocate(wanted(), [Node(1, 0)])
    assert (found.slots, found.evaluators, found.trial.cpus) == (1, 1, 0.5)


def test_auto_shares_gpus_between_trials_and_evaluators() -> None:
    found = allocate(wanted(), [Node(16, 1)])
    assert (found.trial, found.slots, found.evaluators) == (Bundle(1, 0.5), 1, 1)
    found = allocate(wanted(), [Node(64, 8)])
    assert (found.slots, found.evaluators) == (12, 4)


def test_a_gpu_asked_for_where_there_is_none_becomes_none_and_is_said() -> None:
    found = allocate(wanted(trial={"gpus": 1}), [Node(4, 0)])
    assert found.trial.gpus == 0
    assert "no GPU" in found.remarks[0]


def test_too_many_concurrent_trials_are_cut_and_said() -> None:
    found = allocate(wanted(max_concurrent=9), [Node(4, 0)])
    assert found.slots == 3
    assert "max_concurrent" in found.remarks[0]


def test_two_evaluators_that_leave_no_room_for_a_trial_are_refused() -> None:
    with pytest.raises(UserError, match="at most 1"):
        allocate(wanted(evaluator={"cpus": 1, "count": 2}, trial={"cpus": 1}), [Node(2, 0)])


def test_a_bundle_that_no_node_holds_is_refused_though_the_cluster_as_a_whole_has_enough() -> None:
    with pytest.raises(UserError, match="do not fit"):
        allocate(wanted(trial={"cpus": 8}), [Node(4, 0), Node(4, 0), Node(4, 0)])


def test_a_cluster_without_nodes_is_refused() -> None:
    with pytest.raises(UserError, match="without nodes"):
        allocate(wanted(), [])


def test_whole_gpus_on_two_nodes() -> None:
    found = allocate(wanted(trial={"gpus": 1}, evaluator={"gpus": 1, "count": 1}), [Node(8, 2), Node(8, 1)])
    assert found.slots == 2


def test_a_share_of_a_gpu_is_not_taken_from_two_of_them() -> None:
    with pytest.raises(UserError, match="at most 1"):
        allocate(wanted(trial={"gpus": 0.6}, evaluator={"gpus": 0.6, "count": 2}), [Node(16, 2)])
    assert allocate(wanted(trial={"gpus": 0.6}, evaluator={"gpus": 0.4, "count": 1}), [Node(16, 2)]).slots == 2
