"""Claims about what dies and what hangs: it is retried or recorded, and the sweep goes on."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faulty import FaultyStore
from inline import SYNTHETIC
from rich.console import Console

import orchestrator
import orchestrator.cluster.run as cluster_run
from orchestrator.analysis import Run

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.filterwarnings("default")]

SMALL = {
    **SYNTHETIC,
    "matrix": {"defense": [{"name": "standard"}]},
    "search": {"trials": 2, "objectives": {"robust_area": "max"}},
    "scheduler": {"name": "none"},
    "evaluation": {**SYNTHETIC["evaluation"], "test": {"finalists": 0}},
}


def swept(root: Path, monkeypatch: pytest.MonkeyPatch | None = None, limits: float = 6.0, **fault: Any) -> Run:
    """A run of two trials, with a fault if one is named."""
    spec = {
        **SMALL,
        "resources": {"max_concurrent": 1, "trial": {"time_limit": limits}, "evaluator": {"time_limit": limits}},
    }
    if monkeypatch is not None:
        whole = cluster_run.open_run

        def faulty(spec: Any, root: Path) -> FaultyStore:
            store = whole(spec, root)
            return FaultyStore(store.root, store.param_columns, driver=os.getpid(), **fault)

        monkeypatch.setattr(cluster_run, "open_run", faulty)
    return orchestrator.run(spec, store=root, console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Run:
    return swept(tmp_path_factory.mktemp("undisturbed"), limits=600.0)


def figures(run: Run) -> pd.DataFrame:
    columns = ["trial_id", "status", "clean_accuracy", "robust_accuracy", "robust_area", "epochs"]
    return run.trials()[columns].sort_values("trial_id").reset_index(drop=True)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("epochs", "exit"),
        pytest.param("epochs", "hang", marks=pytest.mark.parity),
        ("examples", "exit"),
        pytest.param("examples", "hang", marks=pytest.mark.parity),
    ],
)
def test_a_worker_that_dies_or_hangs_once_changes_no_figure(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, fault: str
) -> None:
    run = swept(tmp_path, monkeypatch, table=table, fault=fault)
    assert list(run.root.glob(".strike-*"))
    pd.testing.assert_frame_equal(figures(run), figures(undisturbed))
    assert not run.epochs().duplicated(["trial_id", "epoch"]).any()
    retries = run.events().query("kind == 'retry'")["evidence"]
    if fault == "hang":
        assert retries.str.match("no (report|answer) in 6 s").any()
    elif table == "examples":
        assert retries.str.contains("evaluator died").any()


@pytest.mark.parity
def test_a_trial_whose_worker_always_dies_is_a_failed_row_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = swept(tmp_path, monkeypatch, table="epochs", fault="exit", times=4).trials()
    assert sorted(trials["status"]) == ["completed", "failed"]
    assert "died more than" in trials.query("status == 'failed'")["error"].iloc[0]


def test_a_trial_that_always_hangs_is_tried_once_more_and_then_a_failed_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = swept(tmp_path, monkeypatch, table="epochs", fault="hang", times=2).trials()
    assert sorted(trials["status"]) == ["completed", "failed"]
    assert "TrialHung" in trials.query("status == 'failed'")["error"].iloc[0]


@pytest.mark.parity
def test_an_evaluation_that_always_hangs_is_tried_once_more_and_then_a_failed_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = swept(tmp_path, monkeypatch, table="examples", fault="hang", times=2).trials()
    assert sorted(trials["status"]) == ["completed", "failed"]
    assert "no answer in 6 s" in trials.query("status == 'failed'")["error"].iloc[0]
