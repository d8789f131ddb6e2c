"""Claims about what dies and what hangs: it is retried or recorded, and the sweep goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faulty import FaultyWork
from inline import SYNTHETIC
from rich.console import Console

from orchestrator.analysis import Run, load
from orchestrator.cluster.allocation import Allocation
from orchestrator.cluster.run import run_sweep, torch_work
from orchestrator.errors import SweepStopped, UserError
from orchestrator.progress import Progress
from orchestrator.rundir import run_root
from orchestrator.spec import load_spec
from orchestrator.storage.patience import StoreLost
from orchestrator.sweep import Sweep
from orchestrator.work import Evaluates, Trains, Work

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("default")]

SMALL = {
    **SYNTHETIC,
    "matrix": {"defense": [{"name": "standard"}]},
    "search": {"trials": 2, "objectives": {"robust_area": "max"}},
    "scheduler": {"name": "none"},
    "evaluation": {**SYNTHETIC["evaluation"], "test": {"finalists": 0}},
}


def swept(store: Path, limits: float = 600.0, wrap: Callable[[Work], Work] | None = None, **fault: Any) -> Run:
    """A run of two trials, with a fault if one is named, or with other work."""
    limit = {"time_limit": limits}
    spec = load_spec({**SMALL, "resources": {"max_concurrent": 1, "trial": limit, "evaluator": limit}})

    def make_work(sweep: Sweep, allocation: Allocation) -> Work:
        work = torch_work(sweep, allocation)
        if wrap is not None:
            return wrap(work)
        return FaultyWork(work, store, **fault) if fault else work

    root = run_root(spec, store)
    run_sweep(spec, root, Progress(Console(file=io.StringIO())), make_work=make_work)
    return load(root)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Run:
    return swept(tmp_path_factory.mktemp("undisturbed"))


def figures(run: Run) -> pd.DataFrame:
    columns = ["trial_id", "status", "clean_accuracy", "robust_accuracy", "robust_area", "epochs"]
    return run.trials()[columns].sort_values("trial_id").reset_index(drop=True)


@pytest.mark.parametrize(
    ("victim", "fault"),
    [
        pytest.param("trainer", "exit", marks=pytest.mark.parity),  # and as SIGKILL in test_kills.py
        pytest.param("trainer", "hang", marks=pytest.mark.parity),
        pytest.param("evaluator", "exit", marks=pytest.mark.parity),
        pytest.param("evaluator", "hang", marks=pytest.mark.parity),
    ],
)
def test_a_worker_that_dies_or_hangs_once_changes_no_figure(
    undisturbed: Run, tmp_path: Path, victim: str, fault: str
) -> None:
    run = swept(tmp_path, 6.0 if fault == "hang" else 600.0, victim=victim, fault=fault)
    assert list(tmp_path.glob(".strike-*"))
    pd.testing.assert_frame_equal(figures(run), figures(undisturbed))
    assert not run.epochs().duplicated(["trial_id", "epoch"]).any()
    retries = run.events().query("kind == 'retry'")["evidence"]
    if fault == "hang":
        assert retries.str.match("no (report|answer) in 6 s").any()
    elif victim == "evaluator":
        assert retries.str.contains("evaluator died").any()


@pytest.mark.parity
def test_a_trial_whose_worker_always_dies_is_a_failed_row_and_the_sweep_goes_on(
    tmp_path: Path,
) -> None:
    trials = swept(tmp_path, victim="trainer", fault="exit", times=4).trials()
    assert sorted(trials["status"]) == ["completed", "failed"]
    assert "died more than" in trials.query("status == 'failed'")["error"].iloc[0]


@pytest.mark.parity
def test_a_trial_that_always_hangs_is_tried_once_more_and_then_a_failed_row(
    tmp_path: Path,
) -> None:
    trials = swept(tmp_path, 6.0, victim="trainer", fault="hang", times=2).trials()
    assert sorted(trials["status"]) == ["completed", "failed"]
    assert "TrialHung" in trials.query("status == 'failed'")["error"].iloc[0]


@pytest.mark.parity
def test_an_evaluation_that_always_hangs_is_tried_once_more_and_then_a_failed_row(
    tmp_path: Path,
) -> None:
    trials = swept(tmp_path, 6.0, victim="evaluator", fault="hang", times=2).trials()
    assert sorted(trials["status"]) == ["completed", "failed"]
    assert "no answer in 6 s" in trials.query("status == 'failed'")["error"].iloc[0]


@dataclass(frozen=True)
class Unable:
    """Work that one kind of worker cannot even begin: a broken GPU, a module that is not there."""

    inner: Work
    victim: str

    def load_modules(self) -> None:
        if self.victim == "trainer":
            raise ImportError("no module named gpu_kernels")

    def trainer(self, *arguments: Any) -> Trains:
        return self.inner.trainer(*arguments)

    def evaluator(self, has_gpu: bool) -> Evaluates:
        raise RuntimeError("CUDA error: device is in exclusive mode")


def test_evaluators_that_cannot_begin_end_the_sweep_with_the_reason_and_the_next_run_goes_on(
    undisturbed: Run, tmp_path: Path
) -> None:
    with pytest.raises(SweepStopped, match=r"no evaluator can work.*exclusive mode"):
        swept(tmp_path, wrap=lambda work: Unable(work, "evaluator"))
    run = swept(tmp_path)
    pd.testing.assert_frame_equal(figures(run), figures(undisturbed))


def test_trainers_that_cannot_begin_are_failed_rows_with_the_traceback(tmp_path: Path) -> None:
    trials = swept(tmp_path, wrap=lambda work: Unable(work, "trainer")).trials()
    assert set(trials["status"]) == {"failed"}
    assert trials["error"].str.contains("no module named gpu_kernels").all()


@pytest.mark.parametrize(
    ("moment", "error"),
    [
        pytest.param("reached", StoreLost("the store is gone"), marks=pytest.mark.parity),
        ("ended", UserError("another driver is at work here")),
        pytest.param("evaluated", StoreLost("the store is gone"), marks=pytest.mark.parity),
    ],
)
def test_what_ends_a_sweep_comes_out_as_it_is_and_nothing_is_lost(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: Exception
) -> None:
    """Tune turns what is raised within it into text, or goes on."""

    def fail(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Sweep, moment, fail)
        with pytest.raises(type(error)) as raised:
            swept(tmp_path)
    assert raised.value is error
    pd.testing.assert_frame_equal(figures(swept(tmp_path)), figures(undisturbed))


@dataclass(frozen=True)
class Storeless:
    """Work of which one kind of worker finds its store gone for good, which the driver does not."""

    inner: Work
    victim: str

    def load_modules(self) -> None:
        self.inner.load_modules()

    def trainer(self, *arguments: Any) -> Trains:
        if self.victim == "trainer":
            raise StoreLost("/mnt/shared: could not write checkpoints in 600 s")
        return self.inner.trainer(*arguments)

    def evaluator(self, has_gpu: bool) -> Evaluates:
        return self

    def evaluate(self, assignment: Any, split: Any) -> Any:
        raise StoreLost("/mnt/shared: could not write examples in 600 s")


@pytest.mark.parity
@pytest.mark.parametrize("victim", ["trainer", "evaluator"])
def test_a_store_that_a_worker_has_lost_ends_the_sweep_and_fails_no_trial(
    undisturbed: Run, tmp_path: Path, victim: str
) -> None:
    with pytest.raises(StoreLost, match="/mnt/shared: could not write"):
        swept(tmp_path, wrap=lambda work: Storeless(work, victim))
    pd.testing.assert_frame_equal(figures(swept(tmp_path)), figures(undisturbed))
