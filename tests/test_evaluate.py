"""Claims about `robustsweep evaluate` on a run: stored models attacked again, each once, under a name of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline

from orchestrator.analysis import Run, load
from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.judging import Evaluator
from orchestrator.measurement import Assignment, Found
from orchestrator.splits import Split
from orchestrator.storage.driver_lock import driving
from orchestrator.trials_view import FIGURES, figures

SPEC: dict[str, Any] = {
    **SYNTHETIC,
    "matrix": {"defense": [{"name": "standard"}]},
    "training": {"epochs": 2, "batch_size": 32, "lr": {"uniform": [0.01, 0.2]}},
    "search": {"trials": 3, "sampler": "random", "objectives": {"robust_area": "max"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Inline(tmp_path_factory.mktemp("store") / "tiny", SPEC).run().root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    return load(shutil.copytree(finished, tmp_path / "tiny"))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["robustsweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def finalists(run: Run) -> list[str]:
    trials = run.trials()
    return list(trials.loc[trials["stage"] == "finalist", "trial_id"])


def test_every_model_is_attacked_on_the_split_of_its_stage_and_the_rows_say_the_figures(run: Run) -> None:
    before = run.trials().set_index("trial_id")
    found = run.evaluate("fgsm", name="weak").set_index("trial_id")
    completed = before[before["status"] == "completed"]
    assert set(found.index) == set(completed.index)
    attacks, examples = run.attacks(), run.examples()
    for trial_id, row in found.iterrows():
        assert row["split"] == ("test" if completed.loc[trial_id, "stage"] == "finalist" else "validation")
        mine = [frame[frame["trial_id"] == trial_id] for frame in (attacks, examples)]
        grain = figures(*mine, "weak", row["eps"])
        assert row["robust_accuracy"] == grain["robust_accuracy"]
        assert row["n"] == grain["n"]
        assert row["before_robust_accuracy"] == completed.loc[trial_id, "robust_accuracy"]
    validation = examples[(examples["evaluation"] == "weak") & (examples["split"] == "validation")]
    final = examples[examples["evaluation"] == "final"]
    assert set(validation["example_id"]) == set(final["example_id"])
    after = run.trials().set_index("trial_id").loc[before.index]
    pd.testing.assert_frame_equal(after[[*FIGURES, "evaluation"]], before[[*FIGURES, "evaluation"]])
    assert (after["revision"] - before["revision"]).loc[found.index].eq(1).all()


class Counting(Evaluator):
    """Counts what is measured; stops the process, as Ctrl-C does, before the one numbered `dies_at`."""

    done: ClassVar[list[str]] = []
    dies_at: ClassVar[int] = 10**9

    def evaluate(self, assignment: Assignment, split: Split) -> Found:
        if len(self.done) >= self.dies_at:
            raise KeyboardInterrupt
        found = super().evaluate(assignment, split)
        self.done.append(assignment.plan.trial_id)
        return found


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr(Counting, "done", [])
    monkeypatch.setattr(Counting, "dies_at", 10**9)
    monkeypatch.setattr("orchestrator.evaluating.Evaluator", Counting)
    return Counting


def test_the_same_call_again_measures_nothing_and_says_the_same(run: Run, counting: type[Counting]) -> None:
    first = run.evaluate("fgsm")
    measured = len(counting.done)
    assert measured == len(first)
    pd.testing.assert_frame_equal(run.evaluate("fgsm"), first)
    assert len(counting.done) == measured
    assert first["evaluation"].str.match("evaluate-[0-9a-f]{8}$").all()
    run.evaluate({"name": "fgsm", "loss": "margin"})
    assert len(counting.done) == 2 * measured


def test_a_call_that_was_interrupted_goes_on_where_it_was(
    run: Run, counting: type[Counting], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counting.dies_at = 2
    arguments = ("evaluate", run.root, "--attack", "fgsm")
    assert call(monkeypatch, *arguments) == 130
    assert f"robustsweep evaluate {run.root} --attack fgsm" in capsys.readouterr().err
    counting.dies_at = 10**9
    assert call(monkeypatch, *arguments) == 0
    assert len(counting.done) == len(set(counting.done)) == (run.trials()["status"] == "completed").sum()


def test_another_set_of_attacks_under_a_used_name_is_refused_with_the_difference(run: Run) -> None:
    chosen = finalists(run)[:1]
    run.evaluate("fgsm", trials=chosen, name="mine")
    with pytest.raises(UserError, match=r"(?s)--name mine.*attacks: was .*fgsm.*now .*pgd"):
        run.evaluate({"name": "pgd", "steps": 2}, trials=chosen, name="mine")
    with pytest.raises(UserError, match=r"examples: was \{final: 36, test: 30\}, now 7"):
        run.evaluate("fgsm", trials=chosen, name="mine", examples=7)
    assert set(run.evaluate("fgsm", name="mine")["evaluation"]) == {"mine"}  # more trials are no other evaluation


def test_several_radii_are_a_curve(run: Run) -> None:
    found = run.evaluate("fgsm", trials=finalists(run)[:1], eps=["1/40", 0.1], examples=11)
    assert list(found["eps"]) == [0.025, 0.1]
    assert set(found["n"]) == {11}
    assert found["robust_accuracy"].is_monotonic_decreasing


def test_looking_at_the_test_split_of_search_trials_is_said_aloud(run: Run) -> None:
    said: list[str] = []
    trials = run.trials()
    searched = list(trials.loc[(trials["stage"] == "search") & (trials["status"] == "completed"), "trial_id"])
    found = run.evaluate("fgsm", trials=searched[:1], split="test", say=said.append)
    assert set(found["split"]) == {"test"}
    assert "the test split is shown to 1 search trials" in said[0]
    assert run.trials().set_index("trial_id").loc[searched[0], "evaluation"] == "final"


def test_a_beginning_of_an_id_is_enough_unless_it_is_that_of_several(run: Run) -> None:
    whole = finalists(run)[0]
    assert list(run.evaluate("fgsm", trials=[whole[:10]])["trial_id"]) == [whole]
    with pytest.raises(UserError, match="--trial zz: no completed trial has an id that begins so; there are"):
        run.evaluate("fgsm", trials=["zz"])
    pruned = list(run.trials().loc[run.trials()["status"] == "pruned", "trial_id"])
    if pruned:
        with pytest.raises(UserError, match="is pruned; only completed ones"):
            run.evaluate("fgsm", trials=pruned[:1])


def test_a_sweep_goes_on_after_models_were_attacked_again(run: Run) -> None:
    run.evaluate("fgsm", name="mine")
    more = {**SPEC, "search": {**SPEC["search"], "trials": 4}}
    again = Inline(Path(run.root), more).run()
    assert (again.store.read("trials")["stage"] == "search").sum() == 4
    assert "mine" in again.sweep.evaluations.protocols.known


def test_models_are_not_attacked_while_a_driver_is_at_work(run: Run) -> None:
    with driving(run.store.files), pytest.raises(UserError, match="driver"):
        run.evaluate("fgsm")


def test_a_lost_checkpoint_fails_that_model_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = finalists(run)[0]
    shutil.rmtree(Path(run.root) / "checkpoints" / lost)
    assert call(monkeypatch, "evaluate", run.root, "--attack", "fgsm") == 0
    shown = capsys.readouterr()
    assert "failed" in shown.out
    assert "1 of" in shown.err
    assert call(monkeypatch, "evaluate", run.root, "--attack", "fgsm", "--trial", lost) == 1


def test_the_table_shows_before_and_now(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("evaluate", run.root, "--attack", "{name: pgd, steps: 2}", "--trial", finalists(run)[0])
    assert call(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    for words in ("clean", "before", "now", "(test)", "doubts", finalists(run)[0][:8], "of 30"):
        assert words in shown
    assert call(monkeypatch, *arguments, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["trial_id"] for record in records] == [finalists(run)[0]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--attack: at least one"),
        (("--attack", "pdg"), "must be one of"),
        (("--attack", "{name: pgd, stps: 3}"), "stps: unknown key"),
        (("--attack", "{name: pgd"), "--attack"),
        (("--attack", "fgsm", "--split", "tset"), "--split: must be one of validation, test"),
        (("--attack", "fgsm", "--eps", "8"), "did you mean 8/255"),
        (("--attack", "fgsm", "--eps", "-1/2"), "--eps: must be a number > 0"),
        (("--attack", "fgsm", "--name", "final"), "--name: must be"),
        (("--attack", "fgsm", "--threat", "linf:0.1"), "--threat: a run knows its own"),
    ],
)
def test_a_wrong_call_is_one_message_and_code_2(
    run: Run,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(path for path in Path(run.root).rglob("*") if path.is_file() and ".driver" not in path.name)
    assert call(monkeypatch, "evaluate", run.root, *words) == 2
    assert said in capsys.readouterr().err
    assert sorted(p for p in Path(run.root).rglob("*") if p.is_file() and ".driver" not in p.name) == before
