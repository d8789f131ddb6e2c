"""How far the trials of a search come: what successive halving does with trials of random quality."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.asha import SuccessiveHalving

MOST_SIMULATED = 2000  # trials of one search; more are a multiple of these
_STEPS = 20_000  # trials that are simulated altogether, about
_FEWEST, _MOST = 5, 200  # searches


@dataclass(frozen=True)
class Estimate:
    """A mean over simulated searches, and what nine in ten of them lie between."""

    mean: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        return Estimate(self.mean * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Fates:
    """Of the trials of one cell: how many reach each rung (by epoch), how many the top, and all epochs together."""

    reach: dict[int, Estimate]
    top: Estimate
    epochs: Estimate


def fates(trials: int, schedules: Sequence[Sequence[int]], reduction_factor: float) -> Fates:
    """What to expect of so many trials, whose rungs are one of `schedules` each, the last rung being the top.

    Assumes that trials come in no order and rank alike at every rung. A search that learns brings its best trials
    late, and more of them reach the top.
    """
    simulated = min(trials, MOST_SIMULATED)
    runs = [
        _run(simulated, schedules, reduction_factor, random.Random(seed))
        for seed in range(max(_FEWEST, min(_MOST, _STEPS // simulated)))
    ]
    scale, rungs = trials / simulated, sorted({epoch for schedule in schedules for epoch in schedule})
    return Fates(
        {epoch: _estimate([reached[epoch] for reached, _, _ in runs]).times(scale) for epoch in rungs},
        _estimate([top for _, top, _ in runs]).times(scale),
        _estimate([epochs for _, _, epochs in runs]).times(scale),
    )


def _run(
    trials: int, schedules: Sequence[Sequence[int]], reduction_factor: float, generator: random.Random
) -> tuple[Counter[int], int, int]:
    """One search, trial after trial: how many reached each rung, how many the top, the epochs of all."""
    halving, reached, top, epochs = SuccessiveHalving(reduction_factor), Counter[int](), 0, 0
    for number in range(trials):
        schedule, name, quality = generator.choice(schedules), str(number), generator.random()
        for epoch in schedule:
            reached[epoch] += 1
            halving.record("", epoch, name, (quality,))
            if epoch == schedule[-1]:
                top += 1
            elif halving.goes_on("", epoch, name):
                continue
            epochs += epoch
            break
    return reached, top, epochs


def _estimate(found: Sequence[int]) -> Estimate:
    ordered = sorted(found)
    last = len(ordered) - 1
    return Estimate(sum(ordered) / len(ordered), ordered[round(0.05 * last)], ordered[round(0.95 * last)])
