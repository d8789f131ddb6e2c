"""One evaluation of one trial's model: `evaluate_robustness`, with rows as the store wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attacks import Surface
from defenses.inputs.front import known
from orchestrator.doubts import Doubt
from orchestrator.evaluation import evaluate_robustness
from orchestrator.measurement import Measurement
from orchestrator.metrics import AREA_FRACTIONS, metrics_of
from orchestrator.plan import Plan
from orchestrator.splits import Split
from orchestrator.told import Row


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
    """Attack `model` on the rows that `what` names, through the `surface` of its defense and what stands in front.

    Randomness is keyed by the trial's seed and the example.
    """
    threat, surface = plan.make_threat(), known(surface, model)
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
    where = {"trial_id": plan.trial_id, "epoch": epoch, "evaluation": what.evaluation, "split": what.split}
    attacks = [where | row for row in _records(found.per_attack)]
    return Measured(
        metrics_of(attacks, threat.eps),
        attacks,
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
