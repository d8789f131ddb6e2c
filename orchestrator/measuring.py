"""One evaluation of one trial's model: `evaluate_robustness`, with rows as the store wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attacks import Surface
from orchestrator.doubts import Doubt
from orchestrator.evaluation import AREA_FRACTIONS, evaluate_robustness
from orchestrator.plan import Plan
from orchestrator.splits import Split

Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What to measure: the rows [start, stop) of a split, under a cascade; `curve` adds eps/4 and eps/2."""

    evaluation: str
    split: str
    start: int
    stop: int
    attacks: tuple[dict[str, Any], ...]
    curve: bool


@dataclass(frozen=True)
class Measured:
    """Figures (`metrics`), rows for `attacks` and `examples`, and doubts."""

    metrics: dict[str, float]
    attacks: list[Row]
    examples: list[Row]
    doubts: list[Doubt]

    @property
    def is_degenerate(self) -> bool:
        return any(doubt.kind == "degenerate" for doubt in self.doubts)


def measure(
    model: nn.Module, surface: Surface, split: Split, plan: Plan, epoch: int, what: Measurement, device: str
) -> Measured:
    """Attack `model` on the rows that `what` names. Randomness is keyed by the trial's seed and the example."""
    threat = plan.make_threat()
    rows = slice(what.start, what.stop)
    images = torch.from_numpy(split.images[rows].copy()).float() / 255
    labels = torch.from_numpy(split.labels[rows].copy())
    found = evaluate_robustness(
        model.to(device),
        images,
        labels,
        threat=threat,
        attacks=what.attacks,
        eps=[threat.eps * fraction for fraction in AREA_FRACTIONS] if what.curve else [],
        seed=plan.seed,
        surface=surface,
        example_ids=torch.from_numpy(split.example_ids[rows].copy()),
    )
    metrics = {"clean_accuracy": found.clean_accuracy, "robust_accuracy": found.robust_accuracy}
    if found.robust_area is not None:
        metrics["robust_area"] = found.robust_area
    where = {"trial_id": plan.trial_id, "epoch": epoch, "evaluation": what.evaluation, "split": what.split}
    return Measured(
        metrics,
        [where | row for row in _records(found.per_attack)],
        [where | row for row in _records(found.per_example)],
        found.doubts,
    )


def _records(frame: Any) -> list[Row]:
    """Rows of plain Python values, a missing number as None."""
    columns = {name: frame[name].tolist() for name in frame.columns}
    return [
        {
            name: None if isinstance(value, float) and value != value else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in zip(*columns.values(), strict=True)
    ]


def figures(rows: Any, eps: float) -> dict[str, float]:
    """Clean and robust accuracy, and robust_area where eps/4 and eps/2 were measured, from rows of `attacks`."""
    last = rows.sort_values("position").groupby("eps").last()
    found = {
        "clean_accuracy": float(last.loc[eps, "clean_accuracy"]),
        "robust_accuracy": float(last.loc[eps, "robust_accuracy"]),
    }
    levels = [eps * fraction for fraction in AREA_FRACTIONS]
    if all(level in last.index for level in levels):
        found["robust_area"] = float(last.loc[levels, "robust_accuracy"].mean())
    return found
