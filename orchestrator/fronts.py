"""Ranking by several objectives: non-dominated fronts and crowding (Deb et al. 2002, NSGA-II)."""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def non_dominated_rank(values: Floats) -> Places:
    """The front of each point, 0 for those that none dominates. [n, m], larger is better -> [n]

    A point dominates another if it is nowhere worse and somewhere better; NaN counts as worst.
    """
    points, inverse = np.unique(_known(values), axis=0, return_inverse=True)
    return _rank_distinct(points)[inverse.reshape(-1)]


def crowding_distance(values: Floats) -> Floats:
    """The `crowding` of each point in its front. [n, m] -> [n]"""
    return _crowding_in(_known(values), non_dominated_rank(values))


def _crowding_in(points: Floats, rank: Places) -> Floats:
    distance = np.zeros(len(points))
    for front in range(rank.max(initial=-1) + 1):
        members = np.flatnonzero(rank == front)
        distance[members] = crowding(points[members])
    return distance


def crowding(points: Floats) -> Floats:
    """How lonely each point of one front is: the ends infinite, else the gaps to its neighbours, summed. [n, m] -> [n]

    An objective in which all are equal says nothing; infinite figures are put at the nearest finite one, so that gaps
    stay numbers.
    """
    distance = np.zeros(len(points))
    for objective in points.T:
        finite = objective[np.isfinite(objective)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        if low < high:
            order = np.argsort(objective, kind="stable")
            line = np.clip(objective[order], low, high)
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (line[2:] - line[:-2]) / (high - low)
    return distance


def front_order(values: Floats) -> Places:
    """The points, best first: by front, then the lonelier, then as given. [n, m] -> [n]

    With one objective this is its order.
    """
    rank = non_dominated_rank(values)
    distance = _crowding_in(_known(values), rank)
    return np.lexsort((np.arange(len(rank)), -distance, rank)).astype(np.int64)


def spread(values: Floats, count: int) -> list[int]:
    """At most `count` points, best first: front by front, and in a front greedily by the hypervolume each adds.

    [n, m], larger is better. The reference point is just below the worst of each objective, which is scaled to
    [0, 1], so that a point that is extreme in one objective and worst in another adds little. Ties go to the first
    objective, then to the first given.
    """
    from optuna._hypervolume import compute_hypervolume  # here: who reads a run needs no optuna

    points = _known(values)
    if not len(points):
        return []
    finite = np.where(np.isinf(points), np.nan, points)
    low, high = np.nanmin(finite, axis=0, initial=np.inf), np.nanmax(finite, axis=0, initial=-np.inf)
    width = np.where(high > low, high - low, 1.0)
    losses = -np.nan_to_num((finite - np.where(np.isfinite(low), low, 0.0)) / width, nan=-0.01)  # Optuna minimises
    rank, chosen = non_dominated_rank(values), list[int]()
    reference = np.full(points.shape[1], 0.02)
    for front in range(rank.max() + 1):
        left = [int(place) for place in np.flatnonzero(rank == front)]
        while left and len(chosen) < count:
            volumes = [compute_hypervolume(losses[[*chosen, place]], reference) for place in left]
            best = max(range(len(left)), key=lambda turn: (volumes[turn], points[left[turn], 0], -left[turn]))
            chosen.append(left.pop(best))
    return chosen


def _known(values: Floats) -> Floats:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"values: must be [n, m], got {list(points.shape)}")
    return np.where(np.isnan(points), -np.inf, points)


def _rank_distinct(points: Floats) -> Places:
    """Fronts of distinct points: among these, nowhere worse is enough to dominate."""
    n, m = points.shape
    rank = np.zeros(n, dtype=np.int64)
    if m == 1:
        return np.arange(n, dtype=np.int64)[::-1].copy()  # `points` came sorted
    if m == 2:
        return _rank_pairs(points)
    dominates = np.ones((n, n), dtype=bool)
    for objective in points.T:
        dominates &= objective[:, None] >= objective[None, :]
    np.fill_diagonal(dominates, False)
    waiting_for = dominates.sum(axis=0)
    front, current = 0, np.flatnonzero(waiting_for == 0)
    while len(current):
        rank[current] = front
        waiting_for -= dominates[current].sum(axis=0)
        waiting_for[current] = -1
        front, current = front + 1, np.flatnonzero(waiting_for == 0)
    return rank


def _rank_pairs(points: Floats) -> Places:
    """The same for two objectives without comparing all with all. `points` come sorted by the first, then the second.

    From the best of the first objective downwards a point is dominated by a front if that has a better second one, and
    these best seconds fall from front to front.
    """
    rank = np.zeros(len(points), dtype=np.int64)
    worst_first: list[float] = []  # the best second objective of each front, turned round
    for place in range(len(points) - 1, -1, -1):
        second = -float(points[place, 1])
        front = bisect.bisect_right(worst_first, second)
        rank[place] = front
        if front == len(worst_first):
            worst_first.append(second)
        else:
            worst_first[front] = second
    return rank
