"""Claims about coordinates and points of a Sobol sequence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.lowdiscrepancy import SobolPoints, coordinate

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        (FloatDistribution(-2, 3), -2.0, 3.0),
        (FloatDistribution(1e-3, 10, log=True), 1e-3, 10.0),
        (IntDistribution(4, 9), 4, 9),
        (IntDistribution(4, 10, step=3), 4, 10),
        (IntDistribution(4, 32, log=True), 4, 32),
        (CategoricalDistribution((2, "b", 3)), 2, 3),
    ],
)
def test_the_ends_of_the_unit_interval_are_the_ends_of_a_distribution(
    kind: BaseDistribution, first: Any, last: Any
) -> None:
    assert coordinate(kind, 0.0) == pytest.approx(first, rel=1e-12)
    assert coordinate(kind, ALMOST_ONE) == pytest.approx(last, rel=1e-12)


@pytest.mark.parametrize(
    "kind", [IntDistribution(0, 7), IntDistribution(3, 24, step=3), CategoricalDistribution("abcdefgh")]
)
def test_each_of_eight_values_has_an_eighth_of_the_points(kind: BaseDistribution) -> None:
    points = SobolPoints({"x": kind, "y": FloatDistribution(0, 1)}, seed=5)
    assert set(Counter(points.point(index)["x"] for index in range(64)).values()) == {8}


def test_a_point_is_known_from_its_index_alone() -> None:
    holes = {
        "x": FloatDistribution(0, 1),
        "y": CategoricalDistribution((1, 2, 3)),
        "z": IntDistribution(1, 99, log=True),
    }
    in_order = SobolPoints(holes, seed=7)
    points = [in_order.point(index) for index in range(40)]
    for index in (39, 3, 3, 0, 17, 18):
        assert in_order.point(index) == points[index]
        assert SobolPoints(holes, seed=7).point(index) == points[index]
