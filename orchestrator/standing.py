"""The best of very many, kept up to date: each by how many of the others are better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Marks = NDArray[np.bool_]


class Standing:
    """The `count` best of all that were added, whatever the order in which they came.

    One is better than another if its tier is smaller or, in one tier, if its losses are nowhere larger and somewhere
    smaller, or equal and its number smaller. Since that is transitive, one to which `count` others are better
    never comes back, and what it is better than has as many better ones without it: it is let go.
    """

    def __init__(self, count: int, objectives: int) -> None:
        self._count = count
        self._numbers = np.empty(0, dtype=np.int64)
        self._figures = np.empty((0, 1 + objectives))  # [n, tier and losses]
        self._beaten = np.empty(0, dtype=np.int64)  # how many are better

    def add(self, number: int, tier: float, losses: Sequence[float]) -> None:
        """Note one more; `losses` are the smaller the better, as many as there are objectives."""
        figures = np.array([tier, *losses])
        tiers, mine = self._figures[:, 0], figures[0]
        smaller, larger = self._figures[:, 1:] <= figures[1:], self._figures[:, 1:] >= figures[1:]
        no_worse, no_better = smaller.all(axis=1), larger.all(axis=1)
        is_equal, is_older = no_worse & no_better, self._numbers < number
        beats = (tiers < mine) | ((tiers == mine) & no_worse & (~is_equal | is_older))
        loses = (tiers > mine) | ((tiers == mine) & no_better & (~is_equal | ~is_older))
        beaten = self._beaten + loses
        stays: Marks = np.append(beaten < self._count, beats.sum() < self._count)
        self._numbers = np.append(self._numbers, number)[stays]
        self._figures = np.vstack([self._figures, figures])[stays]
        self._beaten = np.append(beaten, beats.sum())[stays]

    def best(self) -> list[int]:
        """The numbers of the best. Where too many are equally often beaten, those spread over the first loss."""
        order = np.lexsort((self._numbers, self._figures[:, 1], self._beaten))
        if len(order) <= self._count:
            return [int(number) for number in self._numbers[order]]
        last = self._beaten[order[self._count - 1]]
        sure, tied = order[self._beaten[order] < last], order[self._beaten[order] == last]
        places = np.linspace(0, len(tied) - 1, self._count - len(sure)).round().astype(np.int64)
        return [int(number) for number in self._numbers[np.append(sure, tied[places])]]
