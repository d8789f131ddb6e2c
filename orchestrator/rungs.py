"""Rungs: when trials are compared, and what a trial tells when it has reached one."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.measurement import Measurement
from orchestrator.told import Told


@dataclass(frozen=True)
class RungRule:
    """When trials are compared, and by what measurement."""

    measurement: Measurement
    grace_epochs: int
    reduction_factor: float


@dataclass(frozen=True)
class Reached:
    """A trial at a rung: the epoch, its figures there, whether that was the last one, and what is to be recorded."""

    epoch: int
    metrics: dict[str, float]
    is_degenerate: bool
    is_top: bool
    told: Told = field(default_factory=list)


def rungs(epochs: int, grace_epochs: int, reduction_factor: float, ready_epoch: int = 0) -> list[int]:
    """The epochs at which a trial of `epochs` is measured: geometric steps from `ready_epoch`, then the last."""
    found, step = [], float(grace_epochs)
    while ready_epoch + round(step) < epochs:
        found.append(ready_epoch + round(step))
        step *= reduction_factor
    return [*dict.fromkeys(found), epochs]


def rung_key(trial_id: str, epoch: int) -> str:
    """What the records of a rung are called, in `attacks` and in `epochs`."""
    return f"{trial_id}.rung.{epoch:05d}"


def degenerate_key(trial_id: str, epoch: int) -> str:
    """What the event is called that a model was degenerate at a rung."""
    return f"{rung_key(trial_id, epoch)}.degenerate"
