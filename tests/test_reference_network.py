"""Claims about `base`: a network trained once, whoever needs it, and found again by its content."""

from __future__ import annotations

import copy
import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from inline import SYNTHETIC, Inline
from test_defenses_contract import equal, pictures, train

from defenses import DEFENSES, Data, Standard, State, Training
from defenses.inputs import Quantise
from defenses.networks import Mlp, Network
from defenses.state import network_of
from orchestrator import reference_network
from orchestrator.plan import Plan
from orchestrator.reference_network import HOLDS, reference
from orchestrator.spec import load_spec
from orchestrator.storage import checkpoints
from orchestrator.storage.hold import holding

BASE: dict[str, Any] = {"defense": {"name": "standard"}, "training": {"epochs": 2, "lr": 0.1, "weight_decay": 0.0}}
DEFENSE = pytest.mark.parametrize("name", list(DEFENSES))


def spec(**changes: Any) -> dict[str, Any]:
    """Two trials in each of two arms, one epoch each, from one base of two epochs."""
    made = copy.deepcopy(SYNTHETIC)
    made["training"] |= {"epochs": 1, "base": BASE}
    made["search"]["trials"] = 2
    made["evaluation"]["test"] |= {"finalists": 1, "seeds": 1}
    return {**made, **changes}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of bases, once for each time that one was trained."""
    found: list[str] = []
    inner = reference_network._train

    def counted(plan: Plan, *rest: Any) -> None:
        found.append(plan.trial_id)
        inner(plan, *rest)

    monkeypatch.setattr(reference_network, "_train", counted)
    return found


def plans(run: Inline) -> list[Plan]:
    return [Plan.from_json(text) for text in run.store.read("asks")["config_json"]]


def test_all_trials_of_a_sweep_start_from_one_base_that_is_trained_once(tmp_path: Path, trainings: list[str]) -> None:
    """Both arms, finalists with their fresh seeds too; it is told in `events` once, and is no row of `trials`."""
    run = Inline(tmp_path, spec()).run()
    made, trials = plans(run), run.store.read("trials")
    assert set(trials["status"]) <= {"completed", "pruned"}, trials["error"].tolist()
    assert {plan.seed for plan in made} != {0}
    bases = {plan.base().trial_id for plan in made if plan.base()}
    assert len(made) == len(trials) == 6
    assert bases == set(trainings)
    assert len(trainings) == 1
    (base,) = bases
    assert base not in set(trials["trial_id"])
    told = run.store.read("events").query("kind == 'base trained'")
    assert told["trial_id"].tolist() == [base]
    evidence = json.loads(told["evidence"].iloc[0])
    assert (evidence["defense"], evidence["epochs"], evidence["seed"]) == ("standard", 2, 0)
    assert evidence["seconds"] > 0
    assert checkpoints.is_sound(run.store.files, checkpoints.name_of(base, 2))
    again = Inline(tmp_path, spec(search=dict(spec()["search"], trials=4))).run()
    assert len(trainings) == 1
    assert len(again.store.read("events").query("kind == 'base trained'")) == 1


def test_a_killed_sweep_gives_what_an_undisturbed_one_gives(tmp_path: Path, trainings: list[str]) -> None:
    whole, place = Inline(tmp_path / "a" / "whole", spec()).run(), tmp_path / "b" / "killed"  # two stores
    Inline(place, spec()).run(steps=1)
    killed = Inline(place, spec()).run()
    columns = ["trial_id", "status", "clean_accuracy", "robust_accuracy", "rung_robust_accuracy"]
    ours, theirs = (
        run.store.read("trials")[columns].sort_values("trial_id", ignore_index=True) for run in (killed, whole)
    )
    assert ours.equals(theirs)
    assert len(trainings) == 2  # once in each of the two


def test_one_that_died_while_it_trained_the_base_is_taken_up_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_network, "SAVE", 0.0)
    run, epochs = Inline(tmp_path, spec()), []
    plan = _first(run)
    inner = Standard.fit

    class Killed(BaseException):
        """Nobody catches it."""

    def fit(
        self: Standard, network: Network, data: Data, training: Training, draws: Any, state: State | None = None
    ) -> Any:
        for epoch in inner(self, network, data, training, draws, state):
            epochs.append(epoch.state["epoch"])
            yield epoch
            if len(epochs) == 1:
                raise Killed

    monkeypatch.setattr(Standard, "fit", fit)
    split = run.data[plan.cell].train
    with pytest.raises(Killed):
        reference(plan, split, run.store.files, "cpu")
    found = reference(plan, split, run.store.files, "cpu")
    assert epochs == [1, 2]
    monkeypatch.setattr(Standard, "fit", inner)
    other = Inline(tmp_path / "other", spec())
    assert equal(dict(found.weights), dict(reference(plan, split, other.store.files, "cpu").weights))
    assert run.store.files.names(f"checkpoints/{plan.trial_id}") == ["00002.json", "00002.safetensors"]


def test_while_another_worker_trains_it_one_waits_and_takes_what_that_one_made(
    tmp_path: Path, trainings: list[str]
) -> None:
    run = Inline(tmp_path, spec())
    plan, files = _first(run), run.store.files
    split, looks = run.data[plan.cell].train, []
    files.make_directory(HOLDS)
    other = ExitStack()
    other.enter_context(holding(files, f"{HOLDS}/{plan.trial_id}", "worker"))

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            reference_network._train(plan, split, files, "cpu")  # by the other one
            other.close()

    assert reference(plan, split, files, "cpu", pause).weights
    assert len(looks) == 3
    assert trainings == [plan.trial_id]


def test_when_the_other_worker_died_one_trains_it_oneself(tmp_path: Path, trainings: list[str]) -> None:
    run = Inline(tmp_path, spec())
    plan, files = _first(run), run.store.files
    files.make_directory(HOLDS)
    other = ExitStack()
    other.enter_context(holding(files, f"{HOLDS}/{plan.trial_id}", "worker"))
    assert reference(plan, run.data[plan.cell].train, files, "cpu", lambda _: other.close()).weights
    assert trainings == [plan.trial_id]


def test_trained_twice_at_once_it_is_the_same(tmp_path: Path) -> None:
    """As on a disk that cannot lock files: the second writes what is there already."""
    run = Inline(tmp_path, spec())
    plan, files = _first(run), run.store.files
    split = run.data[plan.cell].train
    first = reference(plan, split, files, "cpu")
    reference_network._train(plan, split, files, "cpu")
    assert equal(dict(first.weights), dict(reference(plan, split, files, "cpu").weights))


def test_a_base_has_an_id_of_its_content_alone(tmp_path: Path) -> None:
    """Neither the seed of the trial nor its arm, but the sweep's seed; and never that of a trial that is trained so."""
    run = Inline(tmp_path, spec())
    search = _plan(run)
    base = search.base()
    assert base is not None
    finalist = search.as_finalist(77, 0).base()
    assert finalist is not None
    assert finalist.trial_id == base.trial_id
    assert dataclasses.replace(base, stage="search")._identified().trial_id != base.trial_id
    others = [
        spec(seed=1),
        spec(training=spec()["training"] | {"base": {**BASE, "training": {**BASE["training"], "epochs": 3}}}),
        spec(training=spec()["training"] | {"base": {**BASE, "defense": {"name": "pgd_at", "steps": 2}}}),
        spec(network={"name": "mlp", "widths": [15]}),
    ]
    ids = [_first(Inline(tmp_path / str(place), other)).trial_id for place, other in enumerate(others)]
    assert len({base.trial_id, *ids}) == 5


def test_a_trial_with_another_base_is_another_trial(tmp_path: Path) -> None:
    with_base, without = (_plan(Inline(tmp_path / name, made)) for name, made in (("a", spec()), ("b", _without())))
    assert with_base.training == without.training
    assert with_base.trial_id != without.trial_id


def _without() -> dict[str, Any]:
    made = spec()
    del made["training"]["base"]
    return made


@DEFENSE
def test_every_defense_starts_from_its_weights(name: str) -> None:
    """At a rate of ~0 they are where it ends."""
    training = Training(epochs=1, batch_size=20, lr=0.05)
    (base,) = train(Standard(), pictures(), training, network=Mlp((9,)))
    still = dataclasses.replace(
        training, lr=1e-30, weight_decay=0.0, start=network_of(base.state), threat=_threat(), inputs=(Quantise(8),)
    )
    state = train(DEFENSES[name](), pictures(), still, network=Mlp((9,)), seed=5)[0].state
    found = {key.removeprefix("network."): value for key, value in network_of(state).items()}  # wnll's head is beside
    assert equal({key: found[key] for key in network_of(base.state)}, dict(network_of(base.state)))


def test_a_base_behind_transforms_gives_the_weights_of_its_network() -> None:
    training = Training(epochs=1, batch_size=20, lr=0.05, ema=0.5)
    plain, behind = (
        train(Standard(), pictures(), dataclasses.replace(training, inputs=inputs), network=Mlp((9,)))[0].state
        for inputs in ((), (Quantise(8),))
    )
    assert network_of(plain).keys() == network_of(behind).keys()
    for key, value in network_of(plain).items():
        torch.testing.assert_close(network_of(behind)[key], value)


def test_what_a_resumed_trial_goes_on_from_is_its_own_state() -> None:
    training = Training(epochs=2, batch_size=20, lr=0.05)
    start = network_of(train(Standard(), pictures(), training, network=Mlp((9,)))[1].state)
    started = dataclasses.replace(training, start=start)
    straight = train(Standard(), pictures(), started, network=Mlp((9,)))
    resumed = train(Standard(), pictures(), training, straight[0].state, network=Mlp((9,)))
    assert equal(straight[1].state, resumed[0].state)


def _plan(run: Inline) -> Plan:
    plan = run.sweep.next_trial()
    assert plan is not None
    return plan


def _first(run: Inline) -> Plan:
    base = _plan(run).base()
    assert base is not None
    return base


def _threat() -> Any:
    return load_spec(SYNTHETIC).cells()[0].threat
