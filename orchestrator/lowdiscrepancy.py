"""Points that fill a space evenly: a scrambled Sobol sequence over all its holes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from orchestrator.points import Points


class SobolPoints(Points):
    """The points of one sequence, by index. Each hole has a dimension of its own, also one whose condition does not
    always hold, so that a point is known from (seed, index) alone (Sobol 1967; scrambled as Owen 1998)."""

    def __init__(self, holes: Mapping[str, BaseDistribution], seed: int) -> None:
        self._holes = dict(holes)
        self._engine = qmc.Sobol(max(1, len(self._holes)), scramble=True, rng=seed)

    def point(self, place: int) -> dict[str, Any]:
        """The internal coordinate of each hole at a place of the sequence, by path."""
        if place != self._engine.num_generated:
            self._engine.reset()
            if place:
                self._engine.fast_forward(place)
        shares = self._engine.random(1)[0]
        return {
            path: coordinate(kind, float(share))
            for (path, kind), share in zip(self._holes.items(), shares, strict=False)
        }


def coordinate(kind: BaseDistribution, share: float) -> Any:
    """What lies at a share, from [0, 1), of a distribution."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(share * len(kind.choices))]
    if isinstance(kind, FloatDistribution):
        return _between(kind.low, kind.high, share, kind.log)
    assert isinstance(kind, IntDistribution)
    if kind.log:  # each whole number stands for the stretch half a step to both sides
        found = round(_between(kind.low - 0.5, kind.high + 0.5, share, True))
        return min(max(found, kind.low), kind.high)
    return kind.low + kind.step * int(share * ((kind.high - kind.low) // kind.step + 1))


def share_of(kind: BaseDistribution, value: float) -> float:
    """Where a number lies in its distribution, as a share in [0, 1]: the way back from `coordinate`."""
    if isinstance(kind, FloatDistribution):
        return _share_between(kind.low, kind.high, value, kind.log)
    assert isinstance(kind, IntDistribution)
    half = 0.5 if kind.log else kind.step / 2
    return _share_between(kind.low - half, kind.high + half, value, kind.log)


def _share_between(low: float, high: float, value: float, is_log: bool) -> float:
    if is_log:
        return _share_between(math.log(low), math.log(high), math.log(value), False)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _between(low: float, high: float, share: float, is_log: bool) -> float:
    if is_log:
        return min(max(math.exp(_between(math.log(low), math.log(high), share, False)), low), high)
    return low + share * (high - low)
