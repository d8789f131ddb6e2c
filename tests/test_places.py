"""Claims about the evaluators' places on a cluster that is busy: they are waited for aloud, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import orchestrator.cluster.places as places
from orchestrator.cluster.allocation import Allocation, Bundle
from orchestrator.errors import UserError

ALLOCATION = Allocation(Bundle(1, 0), Bundle(1, 0), slots=1, evaluators=1, evaluator_nodes=("",), trial_node="")


def free() -> float:
    import ray

    return float(ray.available_resources().get("CPU", 0.0))


def await_free(cpus: float) -> None:
    """Until so many CPUs are free: Ray takes a place back a moment after it was told to."""
    deadline = time.monotonic() + 10
    while free() != cpus:
        assert time.monotonic() < deadline, f"{free()} CPUs are free"
        time.sleep(0.05)


@pytest.fixture
def busy(local_ray: None) -> Iterator[None]:
    """A cluster whose two CPUs belong to other work."""
    from ray.util.placement_group import placement_group, remove_placement_group

    await_free(2)
    group = placement_group([{"CPU": 2}])
    assert group.wait(10)
    await_free(0)
    yield
    remove_placement_group(group)
    await_free(2)


def test_an_evaluator_keeps_its_place_and_the_trials_is_free_again(local_ray: None) -> None:
    await_free(2)
    with places.reserved(ALLOCATION, print) as options:
        assert [option["num_cpus"] for option in options] == [1]
        await_free(1)
    await_free(2)


def test_a_busy_cluster_is_refused_after_its_time_with_what_is_free(busy: None) -> None:
    with (
        pytest.raises(UserError, match=r"no room for 2 .*: 0 of 2 CPU are free after 0\.5 s"),
        places.reserved(ALLOCATION, print, patience=0.5),
    ):
        raise AssertionError("there is no place")


def test_a_sweep_says_that_it_waits_and_begins_when_the_others_end(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.util.placement_group import placement_group, remove_placement_group

    monkeypatch.setattr(places, "QUIET", 0.2)
    await_free(2)
    group = placement_group([{"CPU": 2}])
    assert group.wait(10)
    said: list[str] = []

    def others_end(text: str) -> None:
        said.append(text)
        remove_placement_group(group)

    with places.reserved(ALLOCATION, others_end, patience=20) as options:
        assert len(options) == 1
    assert len(said) == 1
    assert "waiting up to 20 s" in said[0]
    await_free(2)
