"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), stopping variant, one or several objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.fronts import front_order

Rung = dict[str, tuple[float, ...]]  # trial id -> the objectives, larger is better


@dataclass
class SuccessiveHalving:
    """At each rung a trial goes on if it is in the best 1/`reduction_factor` of those seen there so far.

    Several objectives are ranked by non-dominated sorting with crowding distance. Figures are keyed by trial
    id, so that recording one twice changes nothing, and rungs by (cell, epoch): cells never compete.
    """

    reduction_factor: float
    rungs: dict[tuple[str, int], Rung] = field(default_factory=dict)

    def record(
        self, cell: str, epoch: int, trial_id: str, values: Sequence[float], is_degenerate: bool = False
    ) -> None:
        """Note the figures of a trial at a rung, each the larger the better; a degenerate model ranks last."""
        figures = (-math.inf,) * len(values) if is_degenerate else tuple(values)
        self.rungs.setdefault((cell, epoch), {})[trial_id] = figures

    def goes_on(self, cell: str, epoch: int, trial_id: str) -> bool:
        """Whether a recorded trial is good enough, among those recorded now, to train on."""
        rung = self.rungs[cell, epoch]
        order = front_order(np.array(list(rung.values()), dtype=float))
        place = list(order).index(list(rung).index(trial_id))
        return place < max(1, math.ceil(len(rung) / self.reduction_factor))


def rungs(epochs: int, grace_epochs: int, reduction_factor: float, ready_epoch: int = 0) -> list[int]:
    """The epochs at which a trial of `epochs` is measured: geometric steps from `ready_epoch`, then the last."""
    found, step = [], float(grace_epochs)
    while ready_epoch + round(step) < epochs:
        found.append(ready_epoch + round(step))
        step *= reduction_factor
    return [*dict.fromkeys(found), epochs]
