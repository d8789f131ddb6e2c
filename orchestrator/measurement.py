"""What is to be measured, and of which model: plain values that travel to an evaluator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan import Plan
from orchestrator.told import Told


@dataclass(frozen=True)
class Measurement:
    """What to measure: the rows [start, stop) of a split, under a cascade; `curve` adds eps/4 and eps/2.

    `eps` are radii instead of the threat's, `seed` one instead of the trial's. `is_informed`: the attacker knows the
    defense's surface.
    """

    evaluation: str
    split: str
    start: int
    stop: int
    attacks: tuple[dict[str, Any], ...]
    curve: bool
    eps: tuple[float, ...] = ()
    seed: int | None = None
    is_informed: bool = True


@dataclass(frozen=True)
class Assignment:
    """One model to evaluate: the checkpoint of a trial at an epoch, and what to measure. `id` names its records."""

    plan: Plan
    epoch: int
    measurement: Measurement

    @property
    def id(self) -> str:
        return f"{self.plan.trial_id}.{self.measurement.evaluation}"


@dataclass(frozen=True)
class Found:
    """What an evaluation gave: `metrics` for the search, `figures` for the trial's row, and what is to be recorded."""

    metrics: dict[str, float]
    figures: dict[str, Any]
    is_degenerate: bool
    told: Told = field(default_factory=list)
