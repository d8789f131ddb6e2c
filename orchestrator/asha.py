"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), stopping variant, one or several objectives."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.fronts import front_order


@dataclass
class Rung:
    """The objectives of the trials that were seen at a rung, by id; larger is better."""

    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _sorted: list[float] = field(default_factory=list)  # of a single objective, turned so that the best is first

    def record(self, trial_id: str, values: tuple[float, ...]) -> None:
        if self.figures.get(trial_id) == values:
            return
        if len(values) == 1:
            if trial_id in self.figures:
                del self._sorted[bisect.bisect_left(self._sorted, _loss(self.figures[trial_id]))]
            bisect.insort(self._sorted, _loss(values))
        self.figures[trial_id] = values

    def place(self, trial_id: str) -> int:
        """How many are before a trial; of equals the first seen is the first."""
        values = self.figures[trial_id]
        if len(values) > 1:
            order = front_order(np.array(list(self.figures.values()), dtype=float))
            return list(order).index(list(self.figures).index(trial_id))
        before = bisect.bisect_left(self._sorted, _loss(values))
        if before + 1 == bisect.bisect_right(self._sorted, _loss(values)):
            return before
        equals = [name for name, other in self.figures.items() if _loss(other) == _loss(values)]
        return before + equals.index(trial_id)


def _loss(values: tuple[float, ...]) -> float:
    """A single objective turned round; NaN is the worst."""
    return math.inf if values[0] != values[0] else -values[0]


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
        self.rungs.setdefault((cell, epoch), Rung()).record(trial_id, figures)

    def goes_on(self, cell: str, epoch: int, trial_id: str) -> bool:
        """Whether a recorded trial is good enough, among those recorded now, to train on."""
        rung = self.rungs[cell, epoch]
        return rung.place(trial_id) < max(1, math.ceil(len(rung.figures) / self.reduction_factor))
