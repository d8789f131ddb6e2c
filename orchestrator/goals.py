"""What a sweep is after: objectives and constraints over the figures of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from orchestrator.fronts import spread

Figures = Mapping[str, float]
NEED_CURVE = "robust_area"  # the one figure that needs eps/4 and eps/2


@dataclass(frozen=True)
class Goals:
    """`objectives` say max or min of a figure, `constraints` hold it to a bound, such as ">= 0.9"."""

    objectives: Mapping[str, str]
    constraints: Mapping[str, str]

    @property
    def directions(self) -> list[str]:
        """As Optuna says them."""
        return ["maximize" if direction == "max" else "minimize" for direction in self.objectives.values()]

    @property
    def need_curve(self) -> bool:
        return NEED_CURVE in self.objectives or NEED_CURVE in self.constraints

    def are_known(self, figures: Figures) -> bool:
        """Whether every objective is among the figures."""
        return all(name in figures for name in self.objectives)

    def values(self, figures: Figures) -> tuple[float, ...]:
        """The objectives, in order."""
        return tuple(float(figures[name]) for name in self.objectives)

    def gains(self, figures: Figures) -> tuple[float, ...]:
        """The objectives turned so that larger is better."""
        return tuple(
            float(figures[name]) * (1 if direction == "max" else -1) for name, direction in self.objectives.items()
        )

    def worsened(self, figures: Figures, spread: Figures, risk: float) -> dict[str, float]:
        """The objectives, each `risk` spreads worse than its figure."""
        return {
            name: figures[name] - (1 if direction == "max" else -1) * risk * spread[name]
            for name, direction in self.objectives.items()
        }

    def violations(self, figures: Figures) -> dict[str, float]:
        """By how much each constraint is broken: at most 0 where it holds."""
        return {name: _excess(float(figures[name]), bound) for name, bound in self.constraints.items()}

    def order(self, found: Sequence[Figures], count: int) -> list[int]:
        """The positions of the best `count`, best first: what holds the constraints, then what breaks them least.

        With several objectives, front by front, and in a front those that add most hypervolume to the ones before.
        """
        broken = [sum(max(0.0, excess) for excess in self.violations(figures).values()) for figures in found]
        chosen: list[int] = []
        for _, group in groupby(sorted(range(len(found)), key=broken.__getitem__), key=broken.__getitem__):
            if len(chosen) >= count:
                break
            places = list(group)
            gains = np.array([self.gains(found[place]) for place in places])
            chosen += [places[place] for place in spread(gains, count - len(chosen))]
        return chosen


def _excess(value: float, bound: str) -> float:
    sign, limit = bound.strip()[:2], float(bound.strip()[2:])
    return limit - value if sign == ">=" else value - limit
