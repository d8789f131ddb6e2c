"""The view `trials`: every summary equals what the rows of the other tables say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from attacks.threat import Threat
from orchestrator.evaluation import Robustness, evaluate_robustness
from orchestrator.lifecycle import ENDED, EVALUATION_ENDED, TRAINING_ENDED, TRAINING_STARTED, event
from orchestrator.statistics import wilson_interval
from orchestrator.storage.schemas import schema_of
from orchestrator.storage.store import Store
from orchestrator.trials_view import FIGURES, row_from_tables

EPS, N = 0.1, 60
START = datetime(2025, 1, 1, tzinfo=UTC)
PARAMS = {"training.lr": 0.1, "network": "resnet"}
CONFIG = {
    "network": {"name": "resnet", "depth": 8}, "defense": {"name": "pgd_at"}, "training": {"lr": 0.1},
    "dataset": {"name": "digits"}, "threat": {"norm": "linf", "eps": EPS}, "seed": 3, "stage": "search",
    "config_id": "c0", "params": PARAMS,
}  # fmt: skip
ASK = {"trial_id": "t", "cell": "all", "config_json": json.dumps(CONFIG), "params_json": '{"the": "sampler\'s own"}'}
END = {
    "status": "completed", "error": None, "stage": "search", "seed": 3, "started_at": START.isoformat(),
    "checkpoint": "t/00004.safetensors", "checkpoint_epoch": 4, "parameters": 12, "host": "here", "device": "cpu",
    "peak_memory_bytes": 5, "train_seconds": 2.5, "gpu_seconds": 0.0,
}  # fmt: skip
GRAIN = ("epochs", "attacks", "examples", "events")


class Linear(nn.Module):
    """Two classes by the first pixel; `noise` makes it stochastic."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        self.gain = nn.Parameter(torch.tensor(8.0))

    def forward(self, x: Tensor) -> Tensor:
        side = self.gain * (x[:, 0, 0, 0] - 0.5 + self.noise * torch.randn(len(x)))
        return torch.stack([-side, side], dim=1)


@dataclass
class Tables:
    """The rows of one trial as a real store gives them back."""

    store: Store

    def add(self, table: str, key: str, rows: list[dict[str, Any]]) -> None:
        assert self.store.append(table, key, rows)

    def evaluate(self, evaluation: str, eps: tuple[float, ...] = (), epoch: int = 4, noise: float = 0.0) -> Robustness:
        generator = torch.Generator().manual_seed(sum(evaluation.encode()))
        images = torch.rand(N, 1, 2, 2, generator=generator)
        labels = (images[:, 0, 0, 0] > 0.5).long()
        labels[:7] = 1 - labels[:7]  # clean errors
        found = evaluate_robustness(
            Linear(noise), images, labels, threat=Threat("linf", EPS), attacks=["noise", "fgsm"], eps=eps, doubts="off"
        )
        where = {"trial_id": "t", "epoch": epoch, "evaluation": evaluation, "split": "validation"}
        for table, frame in (("examples", found.per_example), ("attacks", found.per_attack)):
            self.add(table, f"t.{evaluation}.{epoch}", frame.assign(**where).to_dict("records"))
        return found

    def end(self, after: float = 60, **said: Any) -> None:
        self.tell(ENDED, END | said, after)

    def tell(self, kind: str, evidence: Any = "", after: float = 0, severity: str = "note") -> None:
        row = event("t", kind, evidence, severity, at=START + timedelta(seconds=after))
        self.add("events", f"t.{len(self.store.keys('events'))}", [row])

    def row(self) -> dict[str, Any]:
        return row_from_tables(ASK, **{table: self.store.read(table) for table in GRAIN})


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    store = Store.at(tmp_path / "sweep", {"training.lr": "float", "network": "string"})
    store.prepare()
    return Tables(store)


def test_a_trial_that_failed_at_once_has_a_row_without_figures(tables: Tables) -> None:
    tables.tell(ENDED, {"status": "failed", "error": "Traceback ...", "stage": "search", "seed": 3})
    row = tables.row()
    assert (row["status"], row["error"]) == ("failed", "Traceback ...")
    assert [row[name] for name in ("epochs", "doubts", "eval_seconds")] == [0, 0, 0]
    assert [row[name] for name in (*FIGURES, "evaluation", "rung_robust_accuracy", "started_at")] == [None] * 9


def test_the_row_has_the_columns_of_the_table_and_is_accepted_by_the_store(tables: Tables) -> None:
    tables.evaluate("final")
    tables.end()
    row = tables.row()
    assert set(row) == set(schema_of("trials", tables.store.param_columns).names)
    tables.store.replace("trials", "t", [row | {"sweep": "s"}])
    stored = tables.store.read("trials").iloc[0]
    assert stored["robust_accuracy"] == row["robust_accuracy"]
    assert (stored["param.training.lr"], stored["param.network"]) == (0.1, "resnet")
    assert json.loads(stored["params_json"]) == PARAMS
    told = [name for name in END if name not in ("started_at", "error")]
    assert {name: row[name] for name in told} == {name: END[name] for name in told}
    assert stored[["defense", "network", "dataset", "norm"]].to_list() == ["pgd_at", "resnet", "digits", "linf"]
    assert stored[["seed", "config_id", "cell", "revision"]].to_list() == [3, "c0", "all", 1]


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_figures_are_those_of_the_evaluation(tables: Tables, noise: float) -> None:
    found = tables.evaluate("final", eps=(EPS / 4, EPS / 2), noise=noise)
    tables.end()
    row = tables.row()
    assert found.per_example["robust_probability"].notna().all() == (noise > 0)
    assert 0 < row["robust_accuracy"] < row["robust_area"] < row["clean_accuracy"] < 1
    assert row["n"] == N
    assert row["clean_accuracy"] == pytest.approx(found.clean_accuracy)
    assert row["robust_accuracy"] == pytest.approx(found.robust_accuracy)
    assert row["robust_area"] == pytest.approx(found.robust_area)
    assert (row["robust_ci_low"], row["robust_ci_high"]) == pytest.approx(found.confidence_interval)


def test_figures_are_those_of_the_rows_of_both_tables(tables: Tables) -> None:
    tables.evaluate("final", eps=(EPS / 4, EPS / 2))
    tables.end()
    row, attacks, examples = tables.row(), tables.store.read("attacks"), tables.store.read("examples")
    worst = examples[examples["eps"] == EPS].groupby("example_id")["robust"].min()
    assert row["robust_accuracy"] == worst.mean() == attacks[attacks["eps"] == EPS]["robust_accuracy"].iloc[-1]
    assert (row["robust_ci_low"], row["robust_ci_high"]) == wilson_interval(int(worst.sum()), N)
    assert row["robust_area"] == pytest.approx(attacks.groupby("eps")["robust_accuracy"].last().mean())
    right = examples["clean_prediction"] == examples["label"]
    assert row["clean_accuracy"] == attacks["clean_accuracy"].iloc[0] == right.mean()
    assert row["eval_seconds"] == pytest.approx(attacks["seconds"].sum())


def test_without_all_three_radii_there_is_no_area(tables: Tables) -> None:
    tables.evaluate("final", eps=(EPS / 2,))
    tables.end()
    row = tables.row()
    assert row["robust_area"] is None
    assert row["robust_accuracy"] is not None


def test_the_headline_is_of_the_test_then_of_final_never_of_a_rung(tables: Tables) -> None:
    tables.end()
    tables.evaluate("rung")
    assert (tables.row()["evaluation"], tables.row()["robust_accuracy"], tables.row()["revision"]) == (None, None, 0)
    final = tables.evaluate("final")
    assert (tables.row()["evaluation"], tables.row()["revision"]) == ("final", 1)
    tables.evaluate("paper")
    assert (tables.row()["evaluation"], tables.row()["revision"]) == ("final", 2)
    assert tables.row()["robust_accuracy"] == pytest.approx(final.robust_accuracy)
    test = tables.evaluate("test")
    assert test.robust_accuracy != final.robust_accuracy
    assert tables.row()["robust_accuracy"] == pytest.approx(test.robust_accuracy)
    assert tables.row()["evaluation"] == "test"


def test_an_evaluation_of_which_half_is_written_does_not_count_yet(tables: Tables) -> None:
    tables.evaluate("final")
    tables.end()
    examples = tables.store.read("examples").assign(evaluation="test")
    tables.add("examples", "t.test", examples.to_dict("records"))
    assert tables.row()["evaluation"] == "final"


def test_the_rung_figure_is_that_of_the_checkpoint(tables: Tables) -> None:
    tables.end(checkpoint_epoch=2)
    for epoch, noise in ((2, 0.0), (4, 0.3)):
        tables.evaluate("rung", epoch=epoch, noise=noise, eps=(EPS / 2, 2 * EPS))
    attacks = tables.store.read("attacks")
    rows = attacks[(attacks["epoch"] == 2) & (attacks["eps"] == EPS)]
    assert tables.row()["rung_robust_accuracy"] == rows["robust_accuracy"].iloc[-1]
    assert tables.row()["checkpoint_epoch"] == 2


def test_doubts_are_counted_and_other_events_are_not(tables: Tables) -> None:
    tables.end()
    tables.tell("doubt:degenerate", severity="severe")
    tables.tell("doubt:masked", severity="note")
    tables.tell("rung:degenerate", severity="severe")
    assert (tables.row()["doubts"], tables.row()["severe_doubts"]) == (2, 1)


def test_times_are_those_of_its_events(tables: Tables) -> None:
    tables.tell(TRAINING_STARTED, after=5)
    tables.tell(TRAINING_ENDED, after=9)
    tables.tell(ENDED, {name: END[name] for name in END if name != "started_at"}, after=10)
    assert tables.row()["started_at"] == START + timedelta(seconds=5)
    assert tables.row()["finished_at"] == START + timedelta(seconds=10)
    tables.tell(EVALUATION_ENDED, after=30)
    tables.tell("doubt:masked", after=31)
    assert tables.row()["finished_at"] == START + timedelta(seconds=30)


def test_what_a_later_end_says_stands_over_the_earlier(tables: Tables) -> None:
    tables.end(after=90, status="failed", error="the evaluator broke")
    tables.end(after=60)
    row = tables.row()
    assert (row["status"], row["error"], row["parameters"]) == ("failed", "the evaluator broke", 12)


def test_a_trial_without_an_end_has_no_row(tables: Tables) -> None:
    tables.evaluate("final")
    with pytest.raises(ValueError, match="trial t: its end is not on record"):
        tables.row()


def test_rows_of_other_trials_are_left_aside(tables: Tables) -> None:
    tables.evaluate("final")
    tables.end()
    alone = tables.row()
    frames = {table: tables.store.read(table) for table in GRAIN}
    both = {table: pd.concat([frame, frame.assign(trial_id="u")]) for table, frame in frames.items()}
    assert row_from_tables(ASK, **both) == alone


def test_the_number_of_epochs_is_that_of_those_on_record(tables: Tables) -> None:
    tables.end()
    tables.add("epochs", "t.2", [{"trial_id": "t", "epoch": epoch, "loss": 1.0} for epoch in (1, 2)])
    tables.add("epochs", "t.4", [{"trial_id": "t", "epoch": epoch, "loss": 1.0} for epoch in (3, 4)])
    assert tables.row()["epochs"] == 4
