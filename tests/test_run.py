"""Claims about a sweep on Ray: it finds what the same sweep finds in one process, and works in parallel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline
from rich.console import Console

import orchestrator
from orchestrator.analysis import Run

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("default")]

FIGURES = ["trial_id", "status", "stage", "clean_accuracy", "robust_accuracy", "robust_area", "rung_robust_accuracy"]


def swept(store: Path, **settings: Any) -> tuple[Run, str]:
    """A finished run of the tiny sweep, and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    run = orchestrator.run({**SYNTHETIC, **settings}, store=store, console=console)
    assert isinstance(console.file, io.StringIO)
    return run, console.file.getvalue()


def figures(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[FIGURES].sort_values("trial_id").reset_index(drop=True)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Run:
    return swept(tmp_path_factory.mktemp("ray"), resources={"max_concurrent": 1})[0]


def test_a_sweep_on_ray_finds_what_it_finds_in_one_process(one_by_one: Run, tmp_path: Path) -> None:
    inline = Inline(tmp_path / "tiny").run()
    pd.testing.assert_frame_equal(figures(one_by_one.trials()), figures(inline.store.read("trials")))


@pytest.mark.parity
def test_one_by_one_a_second_sweep_finds_the_same(one_by_one: Run, tmp_path: Path) -> None:
    again, _ = swept(tmp_path, resources={"max_concurrent": 1})
    pd.testing.assert_frame_equal(figures(one_by_one.trials()), figures(again.trials()))


def test_a_finished_sweep_starts_nothing(one_by_one: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(one_by_one.root).rglob("[!.]*") if path.is_file()}
    _, printed = swept(Path(one_by_one.root).parent, resources={"max_concurrent": 1})
    assert "nothing to do" in printed
    assert before == {path: path.stat().st_mtime_ns for path in Path(one_by_one.root).rglob("[!.]*") if path.is_file()}


@pytest.mark.parity
def test_an_evaluator_works_while_a_trainer_trains(tmp_path: Path) -> None:
    slow = {
        **SYNTHETIC["evaluation"],
        "final": {"examples": 36, "attacks": [{"name": "pgd", "steps": 60, "restarts": 6}]},
    }
    run, printed = swept(tmp_path, evaluation=slow, scheduler={"name": "none"})
    assert overlaps(run.events()) > 0
    assert "search 8/8" in printed
    assert (run.trials()["status"] == "completed").all()


def overlaps(events: pd.DataFrame) -> int:
    """How many pairs of a training and an evaluation, of different trials, share a moment."""

    def spans(what: str) -> list[tuple[Any, Any, str]]:
        starts, ends = (events[events["kind"] == f"{what} {side}"].sort_values("at") for side in ("started", "ended"))
        return [
            (start, ends[(ends["trial_id"] == trial) & (ends["at"] >= start)]["at"].min(), trial)
            for start, trial in zip(starts["at"], starts["trial_id"], strict=True)
        ]

    return sum(
        a < d and c < b and one != other for a, b, one in spans("training") for c, d, other in spans("evaluation")
    )


def test_the_store_reads_in_pandas_with_typed_settings(one_by_one: Run) -> None:
    trials = pd.read_parquet(f"{one_by_one.root}/trials")
    assert trials["param.training.lr"].dtype == "float64"
    assert len(trials) == len(pd.read_parquet(f"{one_by_one.root}/asks"))
    for table in ("epochs", "attacks", "examples", "events"):
        assert len(pd.read_parquet(f"{one_by_one.root}/{table}"))


def test_a_model_of_the_store_gives_the_figures_of_its_row(one_by_one: Run) -> None:
    import torch

    from orchestrator.splits import load_test

    row = one_by_one.trials().query("stage == 'finalist'").iloc[0]
    model = one_by_one.model(row["trial_id"])
    split = load_test({**SYNTHETIC["dataset"]}, 0)
    logits = model(torch.from_numpy(split.images[:30].copy()).float() / 255)
    assert (logits.argmax(1).numpy() == split.labels[:30]).mean() == pytest.approx(row["clean_accuracy"])


def test_a_trial_that_fails_does_not_end_the_sweep(tmp_path: Path) -> None:
    training = {**SYNTHETIC["training"], "lr": {"choice": [1e18, 0.05]}}
    run, printed = swept(tmp_path, training=training, search={"trials": 3, "sampler": "random"})
    failed = run.trials().query("status == 'failed'")
    assert len(failed)
    assert failed["error"].str.contains("TrainingDiverged").all()
    assert "TrainingDiverged" in printed


@pytest.mark.parity
def test_configurations_with_several_seeds_are_whole_at_the_end_of_one_run(tmp_path: Path) -> None:
    """With two workers the last configuration's first seed is under way when nothing else is left to begin."""
    search = {"trials": 3, "sampler": "random", "objectives": {"robust_area": "max"}, "seeds": 2}
    tiny = {"matrix": {"defense": [{"name": "standard"}]}, "search": search}
    run, printed = swept(tmp_path, **tiny, scheduler={"name": "none"})
    searched = run.trials().query("stage == 'search'")
    assert searched.groupby("config_id").size().tolist() == [2, 2, 2]
    assert "search 6/6" in printed
    again, _ = swept(tmp_path, **tiny, scheduler={"name": "none"}, name="again")
    assert (again.events()["kind"] == "reused").sum() == len(run.trials())
    started, before = ((each.events()["kind"] == "evaluation started").sum() for each in (again, run))
    assert started == before
    pd.testing.assert_frame_equal(figures(again.trials()), figures(run.trials()))


def test_a_time_budget_of_nothing_begins_nothing(tmp_path: Path) -> None:
    run = orchestrator.run(SYNTHETIC, store=tmp_path, time_budget=0, console=Console(file=io.StringIO()))
    assert len(run.trials()) == 0
