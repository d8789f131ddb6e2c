"""Intervals, held against those of scipy."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from orchestrator.statistics import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 50), (49, 50), (137, 500), (5000, 10_000)]
)
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_wilson_is_that_of_scipy(successes: int, n: int, confidence: float) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_expected_numbers_and_stays_between_their_neighbours() -> None:
    low, high = wilson_interval(10.5, 50)
    assert wilson_interval(10, 50)[0] < low < wilson_interval(11, 50)[0]
    assert wilson_interval(10, 50)[1] < high < wilson_interval(11, 50)[1]
    assert wilson_interval(50 * (1 + 1e-12), 50)[1] == 1.0


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5), (float("nan"), 5)])
def test_wilson_of_the_impossible_is_refused(successes: float, n: int) -> None:
    with pytest.raises(ValueError, match="successes: must be from 0 to n"):
        wilson_interval(successes, n)
