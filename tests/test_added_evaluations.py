"""Claims about evaluations that are added to a sweep: named ones, and changed ones beside what was measured before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline
from rich.console import Console

from orchestrator.analysis import load
from orchestrator.doubts import Doubt
from orchestrator.errors import SpecError
from orchestrator.judging import Evaluator
from orchestrator.leaderboard_table import render
from orchestrator.measurement import Assignment, Found
from orchestrator.splits import Split
from orchestrator.trials_view import FIGURES, row_from_tables, rows_of

SPEC: dict[str, Any] = {
    **SYNTHETIC,
    "matrix": {"defense": [{"name": "standard"}]},
    "training": {"epochs": 2, "batch_size": 32, "lr": {"uniform": [0.01, 0.2]}},
    "search": {"trials": 3, "sampler": "random", "objectives": {"robust_area": "max"}},
}
PAPER = {"examples": 20, "attacks": ["fgsm"]}
TABLES = ("asks", "trials", "epochs", "attacks", "examples", "events")


def with_evaluations(**more: Any) -> dict[str, Any]:
    return {**SPEC, "evaluation": {**SPEC["evaluation"], **more}}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Inline(tmp_path_factory.mktemp("store") / "tiny", SPEC).run().root


@pytest.fixture
def root(before: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(before, tmp_path / "tiny"))


def keyed(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return frame.set_index("trial_id")[list(columns)].sort_index()


def assert_rows_are_what_the_tables_say(run: Inline) -> None:
    tables = {name: run.store.read(name) for name in ("epochs", "attacks", "examples", "events")}
    rows = run.store.read("trials").set_index("trial_id")
    for ask in rows_of(run.store.read("asks")):
        found = row_from_tables(ask, **tables, headlines=run.sweep.evaluations.protocols.headlines)
        there = rows.loc[ask["trial_id"]]
        for name in (*FIGURES, "evaluation", "revision", "doubts"):
            same = there[name] == found[name] or (pd.isna(there[name]) and pd.isna(found[name]))
            assert same, (ask["trial_id"], name)


def test_a_named_evaluation_is_added_to_a_finished_sweep_and_nothing_else_is_done(root: Path, before: Path) -> None:
    run = Inline(root, with_evaluations(paper=PAPER)).run()
    assert run.trained_rungs == 0
    attacks = run.store.read("attacks")
    paper = attacks[attacks["evaluation"] == "paper"]
    trials = run.store.read("trials")
    assert set(paper["trial_id"]) == set(trials.loc[trials["stage"] == "finalist", "trial_id"])
    assert set(paper["split"]) == {"test"}
    assert set(paper["n"]) == {20}
    old = load(before).trials()
    pd.testing.assert_frame_equal(keyed(trials, *FIGURES, "evaluation"), keyed(old, *FIGURES, "evaluation"))
    assert (keyed(trials, "revision") - keyed(old, "revision"))["revision"].sum() == len(set(paper["trial_id"]))
    assert_rows_are_what_the_tables_say(run)
    parts = {table: run.store.keys(table) for table in TABLES}
    again = Inline(root, with_evaluations(paper=PAPER)).run()
    assert {table: again.store.keys(table) for table in TABLES} == parts


def test_one_of_search_trials_measures_rows_that_no_rung_used(root: Path) -> None:
    run = Inline(root, with_evaluations(beside={**PAPER, "of": "search"})).run()
    examples = run.store.read("examples")
    mine, final = (examples[examples["evaluation"] == name] for name in ("beside", "final"))
    assert set(mine["trial_id"]) == set(final["trial_id"])
    assert set(mine["example_id"]) < set(final["example_id"])
    assert set(mine["split"]) == {"validation"}


def test_a_changed_final_is_measured_beside_the_old_one_and_never_mixed_with_it(root: Path) -> None:
    old = load(root).trials()
    final = {"examples": 30, "attacks": [{"name": "pgd", "steps": 6}]}
    run = Inline(root, with_evaluations(final=final))
    waiting = run.sweep.unevaluated("search")
    assert {assignment.measurement.evaluation for assignment in waiting} == {"final.2"}
    assert len(waiting) == (old["evaluation"] == "final").sum() > 1
    assert not run.sweep.is_searched
    assert run.sweep.best("defense=standard", 3) == []
    assert_rows_are_what_the_tables_say(run)
    rows = run.store.read("trials")
    pd.testing.assert_frame_equal(keyed(rows, *FIGURES, "evaluation"), keyed(old, *FIGURES, "evaluation"))
    run._evaluate(waiting[0])  # and then the driver dies
    run.sweep.ledger.flush()
    board = load(root).leaderboard()
    assert set(board["final_n"].dropna()) == {30}
    assert board["final_n"].notna().sum() == 1

    run = Inline(root, with_evaluations(final=final)).run()
    assert run.sweep.is_searched
    trials = run.store.read("trials")
    assert set(trials.loc[trials["stage"] == "search", "evaluation"].dropna()) == {"final.2"}
    assert_rows_are_what_the_tables_say(run)
    attacks = run.store.read("attacks")
    assert {"final", "final.2"} <= set(attacks["evaluation"])
    told = [record.evaluations["final.2"]["robust_area"] for record in run.sweep.best("defense=standard", 9)]
    assert told == sorted(told, reverse=True)

    keys = run.store.keys("attacks")
    back = Inline(root, SPEC).run()
    assert back.store.keys("attacks") >= keys
    assert not [key for key in back.store.keys("attacks") - keys if key.endswith("final")]
    same = back.store.read("trials").set_index("trial_id").loc[old["trial_id"]].reset_index()
    pd.testing.assert_frame_equal(keyed(same, *FIGURES, "evaluation"), keyed(old, *FIGURES, "evaluation"))


def test_a_changed_test_measures_the_finalists_again(root: Path) -> None:
    changed = {**SPEC["evaluation"]["test"], "attacks": ["fgsm"]}
    run = Inline(root, with_evaluations(test=changed)).run()
    assert run.trained_rungs == 0
    trials = run.store.read("trials")
    assert set(trials.loc[trials["stage"] == "finalist", "evaluation"]) == {"test.2"}
    board = load(root).leaderboard()
    assert board["seeds"].max() == 2
    assert_rows_are_what_the_tables_say(run)


def test_the_leaderboard_has_columns_for_evaluations_beside_and_ranks_by_none(root: Path, before: Path) -> None:
    Inline(root, with_evaluations(paper=PAPER)).run()
    run = load(root)
    found = run.evaluate("fgsm", name="weak", examples=9)
    board, old = run.leaderboard(), load(before).leaderboard()
    pd.testing.assert_frame_equal(board[list(old.columns)].drop(columns=["doubts"]), old.drop(columns=["doubts"]))
    attacks = run.attacks()
    paper = attacks[(attacks["evaluation"] == "paper")]
    tested = board[board["stage"] == "finalist"]
    assert tested["paper_robust_accuracy"].tolist() == [paper["robust_accuracy"].mean()]
    assert board["paper_n"].dropna().tolist() == [20]
    now = found.set_index("trial_id")["robust_accuracy"]
    untested = board[board["weak_validation_robust_accuracy"].notna()].set_index("trial_id")
    assert untested["weak_validation_robust_accuracy"].to_dict() == now.loc[untested.index].to_dict()
    assert tested["weak_test_robust_accuracy"].tolist() == [
        found.query("stage == 'finalist'")["robust_accuracy"].mean()
    ]
    console = Console(width=300)
    with console.capture() as shown:
        console.print(render(run))
    assert "paper" in shown.get()
    assert "weak_test" in shown.get()
    unnamed = run.evaluate("fgsm", examples=8)["evaluation"].iloc[0]
    assert f"{unnamed}_test_robust_accuracy" in run.leaderboard()
    with console.capture() as shown:
        console.print(render(run))
    assert f"in leaderboard(): {unnamed}_test, {unnamed}_validation" in shown.get()


def test_protocols_that_are_lost_are_measured_again_under_new_names(root: Path) -> None:
    final = {"examples": 30, "attacks": ["noise"]}
    Inline(root, with_evaluations(final=final)).run()
    (root / "evaluations.json").unlink()
    run = Inline(root, with_evaluations(final=final))
    assert {assignment.measurement.evaluation for assignment in run.sweep.unevaluated("search")} == {"final.3"}
    assert run.run().sweep.is_searched
    assert_rows_are_what_the_tables_say(run)


def test_a_run_without_protocols_on_record_has_those_of_its_spec(root: Path) -> None:
    (root / "evaluations.json").unlink()
    assert Inline(root, SPEC).sweep.is_searched
    run = Inline(root, with_evaluations(final={"examples": 30, "attacks": ["noise"]}))
    assert run.sweep.evaluations.name("final") == "final.2"


class Failing(Evaluator):
    """Measures everything but what is called `paper`."""

    def evaluate(self, assignment: Assignment, split: Split) -> Found:
        if assignment.measurement.evaluation == "paper":
            raise ValueError("it cannot be done")
        return super().evaluate(assignment, split)


def test_an_evaluation_beside_that_fails_leaves_the_trial_what_it_was(root: Path) -> None:
    run = Inline(root, with_evaluations(paper=PAPER))
    for assignment in run.sweep.unevaluated("finalist"):
        with pytest.raises(ValueError, match="cannot be done"):
            Failing(run.store, "cpu").evaluate(assignment, run.tests["defense=standard"])
        run.sweep.evaluated(assignment, None, "Traceback ...\nValueError: it cannot be done")
    run.sweep.ledger.flush()
    assert run.sweep.unevaluated("finalist") == []  # until the next run
    assert set(run.store.read("trials")["status"]) <= {"completed", "pruned"}
    assert (run.store.read("events")["kind"] == "evaluation failed").sum() == 2
    assert len(Inline(root, with_evaluations(paper=PAPER)).sweep.unevaluated("finalist")) == 2


def test_a_row_that_a_dead_driver_left_behind_the_tables_is_made_anew(root: Path) -> None:
    run = Inline(root, with_evaluations(paper=PAPER))
    for assignment in run.sweep.unevaluated("finalist"):
        found = Evaluator(run.store, "cpu").evaluate(assignment, run.tests["defense=standard"])
        for entry in found.told:
            run.sweep.ledger.append(*entry)
    run.sweep.ledger.flush()  # and no row of `trials`
    again = Inline(root, with_evaluations(paper=PAPER))
    assert again.sweep.unevaluated("finalist") == []
    assert_rows_are_what_the_tables_say(again)


def test_what_an_evaluation_beside_finds_degenerate_may_win_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On three examples of a paper's protocol one class has more than half soon."""
    found = Doubt("degenerate", "severe", "100% of 3 images are given class 1")
    monkeypatch.setattr("orchestrator.judge.degenerate", lambda *_: found)
    run = Inline(root, with_evaluations(paper={**PAPER, "examples": 3})).run()
    events = run.store.read("events")
    doubts = events.loc[events["kind"] == "doubt:degenerate", "evidence"]
    assert set(doubts) == {f"paper: {found.evidence}"}
    assert not load(root).leaderboard()["degenerate"].any()
    again = Inline(root, with_evaluations(paper={**PAPER, "examples": 3}))
    assert not any(record.is_degenerate for record in again.sweep.records.values())


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"finals": PAPER}, "evaluation.finals: unknown key; the keys are rung, final, test; did you mean 'final'?"),
        ({"a b": PAPER}, "evaluation.'a b': a name must be at most 64 letters"),
        ({"paper": {}}, "evaluation.paper.attacks: is required"),
        ({"paper": {**PAPER, "of": "all"}}, "evaluation.paper.of: must be one of finalists, search, got 'all'"),
        ({"paper": {**PAPER, "of": "search", "split": "test"}}, "evaluation.paper: split: test is for finalists"),
        ({"paper": {**PAPER, "attacks": ["pdg"]}}, "evaluation.paper.attacks[0]: must be one of"),
    ],
)
def test_a_wrong_named_evaluation_is_said_where_it_is(evaluation: dict[str, Any], said: str) -> None:
    from orchestrator.spec import load_spec

    with pytest.raises(SpecError) as refused:
        load_spec(with_evaluations(**evaluation))
    assert said in str(refused.value)
    assert str(refused.value).count("\n") == 0
