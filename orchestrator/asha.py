"""Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), stopping variant, one or several objectives."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.growing_fronts import GrowingFronts


@dataclass
class Rung:
    """The objectives of the trials that were seen at a rung, by id; larger is better."""

    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)  # in the order in which they were first seen
    _sorted: list[tuple[float, int]] = field(default_factory=list)  # of one objective: loss and number, best first
    _fronts: GrowingFronts | None = None  # of several

    def record(self, trial_id: str, values: tuple[float, ...]) -> None:
        if self.figures.get(trial_id) == values:
            return
        is_new = trial_id not in self.figures
        number = self._numbers.setdefault(trial_id, len(self._numbers))
        if len(values) == 1:
            if not is_new:
                self._sorted.remove((_loss(self.figures[trial_id]), number))
            bisect.insort(self._sorted, (_loss(values), number))
        self.figures[trial_id] = values
        if len(values) > 1:
            self._fronts = self._fronts if is_new else None
            for added in [values] if self._fronts else self.figures.values():
                self._fronts = self._fronts or GrowingFronts(len(values))
                self._fronts.add(added)

    def place(self, trial_id: str) -> int:
        """How many are before a trial; of equals the first seen is the first."""
        number = self._numbers[trial_id]
        if self._fronts is not None:
            return self._fronts.place(number)
        return bisect.bisect_left(self._sorted, (_loss(self.figures[trial_id]), number))


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
