"""Claims about trials that another sweep of the store has computed: taken as they are, or trained where in doubt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import s3_server
from inline import SYNTHETIC, Inline
from plugin_modules import plugins_forgotten

from orchestrator.measurement import Assignment
from orchestrator.plugins.admission import admit
from orchestrator.storage import checkpoints
from orchestrator.storage.compaction import compact
from orchestrator.storage.store_place import apart, below_any
from orchestrator.training import Trainer

SAME = ["trial_id", "status", "clean_accuracy", "robust_accuracy", "robust_area", "rung_robust_accuracy", "n", "doubts"]
GRAIN = {
    "epochs": ["trial_id", "epoch", "loss", "clean_accuracy", "robust_accuracy"],
    "attacks": ["trial_id", "epoch", "evaluation", "attack_id", "eps", "n_fooled", "robust_accuracy"],
    "examples": ["trial_id", "evaluation", "attack_id", "eps", "example_id", "robust", "margin"],
}


LONG = [pytest.param(harm, marks=pytest.mark.parity) for harm in ("attacks", "examples", "trials", "spec")]


def named(name: str, **changes: Any) -> dict[str, Any]:
    """One cell searched at random: every sweep of the seed suggests the same."""
    search = {"trials": 3, "sampler": "random", "objectives": {"robust_area": "max"}}
    evaluation = {**SYNTHETIC["evaluation"], "test": {"finalists": 0}}
    return SYNTHETIC | {
        "name": name, "matrix": {"defense": [{"name": "pgd_at", "steps": 2}]}, "search": search,
        "evaluation": evaluation, **changes,
    }  # fmt: skip


def evaluation(**changes: Any) -> dict[str, Any]:
    return {"evaluation": {**SYNTHETIC["evaluation"], "test": {"finalists": 0}, **changes}}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    return Inline(tmp_path_factory.mktemp("store") / "first", named("first")).run()


@pytest.fixture
def store(original: Inline, tmp_path: Path) -> Path:
    """A store that holds a copy of the original run."""
    shutil.copytree(original.root, tmp_path / "first")
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs up to which trainers have trained, from now on."""
    found: list[int] = []
    train_to = Trainer._train_to

    def counted(self: Trainer, rung: int) -> None:
        found.append(rung)
        train_to(self, rung)

    monkeypatch.setattr(Trainer, "_train_to", counted)
    return found


def rows(run: Inline, table: str, columns: list[str]) -> pd.DataFrame:
    found = run.store.read(table)[columns]
    return found.sort_values(columns[:5]).reset_index(drop=True)


def reused(run: Inline) -> dict[str, dict[str, Any]]:
    events = run.store.read("events").query("kind == 'reused'")
    return {row.trial_id: json.loads(row.evidence) for row in events.itertuples()}


def snapshot(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize("is_compacted", [False, True])
def test_the_same_trials_of_another_sweep_are_not_computed_again(
    original: Inline, store: Path, trained: list[int], is_compacted: bool
) -> None:
    if is_compacted:
        compact(Inline(store / "first", named("first")).store)
    before = snapshot(store / "first")
    again = Inline(store / "second", named("second"))
    again._evaluate = lambda assignment: pytest.fail("evaluated again")  # type: ignore[method-assign]
    again.run()
    assert trained == []
    assert snapshot(store / "first") == before  # nothing is written where it was taken from
    pd.testing.assert_frame_equal(rows(again, "trials", SAME), rows(original, "trials", SAME))
    for table, columns in GRAIN.items():
        pd.testing.assert_frame_equal(rows(again, table, columns), rows(original, table, columns))
    assert set(reused(again)) == set(original.store.read("trials")["trial_id"])
    assert {said["run"] for said in reused(again).values()} == {str(store / "first")}
    kinds = again.store.read("events").groupby(["trial_id", "kind"]).size()
    theirs = original.store.read("events").groupby(["trial_id", "kind"]).size()
    assert kinds.drop("reused", level="kind").to_dict() == theirs.to_dict()


def test_a_model_that_was_taken_gives_the_figures_of_its_row(original: Inline, store: Path) -> None:
    again = Inline(store / "second", named("second")).run()
    for checkpoint in again.store.read("trials")["checkpoint"]:
        assert checkpoints.is_sound(again.store.files, checkpoint)
    from orchestrator.judging import Evaluator

    record = next(record for record in again.sweep.records.values() if record.evaluations)
    plan, ended = record.plan, record.ended or {}
    assignment = Assignment(plan, ended["checkpoint_epoch"], again.sweep.measurement("final", plan.cell))
    found = Evaluator(again.store, "cpu").evaluate(assignment, again.data[plan.cell].validation)
    assert found.metrics == again.sweep.records[plan.trial_id].evaluations["final"]


def test_with_another_final_evaluation_only_that_is_done_anew(
    original: Inline, store: Path, trained: list[int]
) -> None:
    final = {"examples": 36, "attacks": [{"name": "pgd", "steps": 5}]}
    again = Inline(store / "second", named("second", **evaluation(final=final))).run()
    assert trained == []
    attacks = again.store.read("attacks").query("evaluation == 'final'")
    assert set(attacks["attack"]) == {"pgd"}
    assert {tuple(said["evaluations"]) for said in reused(again).values()} == {()}
    pd.testing.assert_frame_equal(rows(again, "epochs", GRAIN["epochs"]), rows(original, "epochs", GRAIN["epochs"]))


@pytest.mark.parametrize(
    "changes",
    [
        evaluation(rung={"examples": 24, "attacks": [{"name": "pgd", "steps": 3}]}),
        evaluation(rung={"examples": 20, "attacks": [{"name": "pgd", "steps": 2}]}),
        {"scheduler": {"grace_epochs": 2, "reduction_factor": 2}},
        {"search": named("x")["search"] | {"reuse": False}},
        {"search": named("x")["search"] | {"objectives": {"robust_accuracy": "max"}}},
    ],
    ids=["attacks", "examples", "rungs", "off", "radii"],
)
def test_what_was_compared_otherwise_is_trained(store: Path, trained: list[int], changes: dict[str, Any]) -> None:
    again = Inline(store / "second", named("second", **changes)).run()
    assert len(trained) >= 3
    assert reused(again) == {}


def test_what_was_stopped_there_goes_on_here_from_where_it_was(store: Path, trained: list[int]) -> None:
    first = Inline(store / "first", named("first"))
    stopped = first.store.read("trials").query("status == 'pruned'")
    assert len(stopped)
    more = named("second", search=named("x")["search"] | {"trials": 3})
    again = Inline(store / "second", more)
    again.sweep.halving.goes_on = lambda *_: True  # type: ignore[method-assign]
    trials = again.run().store.read("trials").set_index("trial_id")
    assert set(trials["status"]) == {"completed"}
    assert min(trained) > stopped["epochs"].min()
    fresh = Inline(
        store / "apart" / "third", named("third") | {"scheduler": {"name": "asha", "reduction_factor": 1.01}}
    )
    whole = fresh.run().store.read("epochs").query("epoch == 3").set_index("trial_id")["loss"]
    ours = again.store.read("epochs").query("epoch == 3").set_index("trial_id")["loss"]
    assert set(stopped["trial_id"]) <= set(ours.index) == set(whole.index)
    for trial_id in ours.index:
        assert ours[trial_id] == whole[trial_id]


@pytest.mark.parametrize("harm", ["checkpoint", "epochs", "code", *LONG])
def test_what_is_damaged_or_of_other_code_is_computed_here(
    original: Inline, store: Path, trained: list[int], harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store / "first"
    if harm == "checkpoint":
        for path in root.glob("checkpoints/*/*.safetensors"):
            path.write_bytes(path.read_bytes()[:-8])
    elif harm == "spec":
        (root / "spec.yaml").unlink()
    elif harm == "code":
        monkeypatch.setattr("orchestrator.rundir.code_version", lambda: "another")
        monkeypatch.setattr("orchestrator.provenance.code_version", lambda: "another")
    else:
        for path in [path for path in (root / harm).glob("*.parquet") if path.name != "0-schema.parquet"][:1]:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = Inline(store / "second", named("second")).run()
    assert bool(trained) == (harm != "examples")  # of which only the evaluations are done again
    assert bool(reused(again)) == (harm == "examples")
    pd.testing.assert_frame_equal(rows(again, "trials", SAME), rows(original, "trials", SAME))
    for table, columns in GRAIN.items():
        pd.testing.assert_frame_equal(rows(again, table, columns), rows(original, table, columns))


@pytest.mark.parametrize("steps", [0, 2])
def test_a_sweep_that_was_cut_off_while_it_took_over_ends_the_same(original: Inline, store: Path, steps: int) -> None:
    Inline(store / "second", named("second")).run(steps)
    lost = Inline(store / "second", named("second"))
    lost.sweep.ledger.interval = 1e9
    lost.sweep.next_trial()  # its records wait in the ledger, and die with the driver
    again = Inline(store / "second", named("second")).run()
    pd.testing.assert_frame_equal(rows(again, "trials", SAME), rows(original, "trials", SAME))
    for table, columns in GRAIN.items():
        pd.testing.assert_frame_equal(rows(again, table, columns), rows(original, table, columns))
    assert "conflict" not in set(again.store.read("events")["kind"])


def test_finalists_are_trained_once_and_attacked_in_each_sweep(tmp_path: Path, trained: list[int]) -> None:
    test = {"test": {"finalists": 1, "seeds": 2, "examples": 30, "attacks": [{"name": "pgd", "steps": 3}]}}
    one = Inline(tmp_path / "first", named("first", **evaluation(**test))).run()
    before = len(trained)
    two = Inline(tmp_path / "second", named("second", **evaluation(**test))).run()
    assert len(trained) == before
    finalists = two.store.read("trials").query("stage == 'finalist'")
    assert {tuple(said["evaluations"]) for key, said in reused(two).items() if key in set(finalists["trial_id"])} == {
        ()
    }
    pd.testing.assert_frame_equal(rows(one, "trials", SAME), rows(two, "trials", SAME))


@pytest.mark.parametrize(
    ("place", "above", "name"),
    [
        ("/a/b/run", "/a/b", "run"),
        ("s3://bucket/a/run", "s3://bucket/a", "run"),
        ("s3://bucket/run?region=eu", "s3://bucket?region=eu", "run"),
    ],
)
def test_a_run_lies_in_its_store(place: str, above: str, name: str) -> None:
    assert apart(place) == (above, name)
    assert below_any(above, name) == place


@pytest.mark.parity
def test_in_an_object_store_too_nothing_is_computed_twice_and_other_runs_are_learnt_from(trained: list[int]) -> None:
    with s3_server.serving() as server:
        first = Inline(below_any(server.uri("reuse"), "first"), named("first")).run()  # type: ignore[arg-type]
        before = len(trained)
        second = Inline(below_any(server.uri("reuse"), "second"), named("second")).run()  # type: ignore[arg-type]
        assert len(trained) == before
        assert set(reused(second)) == set(first.store.read("trials")["trial_id"])
        pd.testing.assert_frame_equal(rows(second, "trials", SAME), rows(first, "trials", SAME))
        pd.testing.assert_frame_equal(
            rows(second, "examples", GRAIN["examples"]), rows(first, "examples", GRAIN["examples"])
        )
        search = named("x")["search"] | {"sampler": "tpe", "warm_start": [first.store.root]}
        third = Inline(below_any(server.uri("reuse"), "third"), named("third", search=search))  # type: ignore[arg-type]
        assert len(third.sweep.warm.past["defense=pgd_at"]) == 3


STRONGER = """
from dataclasses import dataclass
from attacks.fgsm import FGSM

@dataclass(frozen=True)
class Mine:
    def __call__(self, model, x, y, threat, draws):
        return FGSM()(model, x, y, threat, draws)
"""
STILL = STRONGER.replace("FGSM()(model, x, y, threat, draws)", "x.clone()")


@pytest.mark.parametrize("stage", ["rung", "final"])
def test_what_an_attack_of_a_plugin_found_is_not_taken_since_no_id_says_what_its_source_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    size = SYNTHETIC["evaluation"][stage]["examples"]
    mine = evaluation(**{stage: {"examples": size, "attacks": [{"name": "my_attack:Mine"}]}})
    one = {"search": named("x")["search"] | {"trials": 1}}
    figures = []
    for name, source in (("first", STILL), ("second", STRONGER)):
        (tmp_path / "my_attack.py").write_text(source)
        with plugins_forgotten():
            admit(["my_attack"])
            run = Inline(tmp_path / "store" / name, named(name, **one, **mine)).run()
            figures.append(run.store.read("attacks").query("evaluation == @stage")["n_fooled"].sum())
    assert figures[0] < figures[1]
    assert all("final" not in said["evaluations"] for said in reused(run).values())
    assert bool(reused(run)) == (stage == "final")
