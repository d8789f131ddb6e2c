"""Non-dominated fronts of points that come one by one: a rung of successive halving with several objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.fronts import crowding


class GrowingFronts:
    """The order of `fronts.front_order`, kept up to date: a point costs a look at the others, not a new ranking."""

    def __init__(self, objectives: int) -> None:
        self._points = np.empty((0, objectives))
        self._rank = np.empty(0, dtype=np.int64)

    def add(self, values: Sequence[float]) -> None:
        """One more point, larger is better, NaN the worst. Whom it beats moves back a front, and pushes on others."""
        given = np.asarray(values, dtype=np.float64)
        point = np.where(np.isnan(given), -np.inf, given)
        better = (self._points >= point).all(axis=1) & (self._points > point).any(axis=1)
        front = int(self._rank[better].max(initial=-1)) + 1
        self._points, self._rank = np.vstack([self._points, point]), np.append(self._rank, front)
        moved = np.array([len(self._rank) - 1])
        while len(moved):
            members = np.flatnonzero(self._rank == front)
            theirs, mine = self._points[members][:, None], self._points[moved][None]
            pushed = members[((theirs <= mine).all(axis=2) & (theirs < mine).any(axis=2)).any(axis=1)]
            front += 1
            self._rank[pushed] = front
            moved = pushed

    def place(self, number: int) -> int:
        """How many come before the point that was added as this number: by front, the lonelier, the earlier."""
        members = np.flatnonzero(self._rank == self._rank[number])
        distance = crowding(self._points[members])
        mine = distance[np.searchsorted(members, number)]
        before = (distance > mine) | ((distance == mine) & (members < number))
        return int((self._rank < self._rank[number]).sum() + before.sum())
