"""Fronts that grow are at every moment those that would be ranked anew."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.asha import SuccessiveHalving
from orchestrator.fronts import front_order
from orchestrator.growing_fronts import GrowingFronts


def drawn(kind: str, m: int, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(m)
    if kind == "ties":
        return rng.integers(0, 4, (n, m)).astype(float)
    points = rng.standard_normal((n, m))
    if kind == "improving":
        points += 0.2 * np.arange(n)[:, None]
    if kind == "holes":
        points[rng.random((n, m)) < 0.2] = np.nan
        points[::7] = -np.inf
    return points


@pytest.mark.parametrize("kind", ["normal", "ties", "improving", "holes"])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_place_of_every_point_is_that_of_a_new_ranking(kind: str, m: int) -> None:
    points, fronts = drawn(kind, m), GrowingFronts(m)
    for count, point in enumerate(points, start=1):
        fronts.add(tuple(point))
        order = front_order(points[:count])
        assert [fronts.place(number) for number in order] == list(range(count))


@pytest.mark.parametrize("m", [1, 2])
def test_a_figure_that_is_corrected_is_ranked_as_if_it_had_always_been_so(m: int) -> None:
    values = {name: tuple(row) for name, row in zip("abcdefgh", drawn("ties", m, 8), strict=True)}
    corrected, right = SuccessiveHalving(2), SuccessiveHalving(2)
    for name, figures in values.items():
        corrected.record("all", 1, name, (9.0,) * m if name == "c" else figures)
        right.record("all", 1, name, figures)
    corrected.record("all", 1, "c", values["c"])
    places = [[halving.rungs["all", 1].place(name) for name in values] for halving in (corrected, right)]
    assert places[0] == places[1]
    assert sorted(places[0]) == list(range(8))
