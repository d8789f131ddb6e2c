"""Non-dominated fronts, held against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.fronts import crowding_distance, front_order, non_dominated_rank, spread


def peeled(values: np.ndarray) -> list[int]:
    """Fronts by the definition, one after the other."""
    rank, left, front = {}, set(range(len(values))), 0
    while left:
        best = {
            i for i in left if not any((values[j] >= values[i]).all() and (values[j] > values[i]).any() for j in left)
        }
        rank |= dict.fromkeys(best, front)
        left, front = left - best, front + 1
    return [rank[i] for i in range(len(values))]


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [3, 8, 1000])
def test_ranks_are_those_of_brute_force(m: int, levels: int) -> None:
    generator = np.random.default_rng(levels + m)
    for n in (1, 2, 5, 40):
        values = generator.integers(0, levels, size=(n, m)).astype(float)
        assert non_dominated_rank(values).tolist() == peeled(values)


def test_a_missing_figure_is_the_worst() -> None:
    values = np.array([[1.0, np.nan], [1.0, 0.0], [0.0, 1.0], [np.nan, np.nan]])
    assert non_dominated_rank(values).tolist() == [1, 0, 0, 2]
    assert np.isfinite(crowding_distance(np.array([[1.0, -np.inf], [2.0, -np.inf], [3.0, -np.inf]]))[1])


def test_no_points_have_no_order() -> None:
    assert front_order(np.empty((0, 2))).tolist() == []


def test_crowding_is_that_of_the_paper() -> None:
    values = np.array([[0.0, 10.0], [1.0, 8.0], [4.0, 4.0], [10.0, 0.0]])
    assert crowding_distance(values).tolist() == [np.inf, 4 / 10 + 6 / 10, 9 / 10 + 8 / 10, np.inf]


def test_order_is_by_front_then_by_loneliness_then_as_given() -> None:
    values = np.array([[1.0, 8.0], [0.5, 0.5], [0.0, 10.0], [4.0, 4.0], [10.0, 0.0], [0.5, 0.5]])
    assert front_order(values).tolist() == [2, 4, 3, 0, 1, 5]


def test_order_by_one_objective_is_its_order_and_equals_stay_as_given() -> None:
    values = np.array([[1.0], [3.0], [2.0], [3.0], [3.0]])
    assert front_order(values).tolist() == [1, 3, 4, 2, 0]


def test_order_does_not_depend_on_scale() -> None:
    values = np.random.default_rng(0).random((60, 3))
    assert front_order(values).tolist() == front_order(values * [1e-3, 7, 1e4] + 5).tolist()


def test_the_spread_begins_at_the_knee_not_at_an_extreme() -> None:
    values = np.array([[0.05, 0.99], [0.60, 0.97], [0.65, 0.90]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        assert order[spread(values[order], 1)[0]] == 1


def test_the_spread_of_one_objective_is_its_order() -> None:
    assert spread(np.array([[0.2], [0.9], [0.5], [0.9]]), 3) == [1, 3, 2]


def test_the_spread_takes_a_whole_front_before_the_next() -> None:
    values = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.4, 0.4], [0.0, 0.0]])
    chosen = spread(values, 5)
    assert set(chosen[:3]) == {0, 1, 2}
    assert chosen[3:] == [3, 4]
    assert spread(values[:0], 3) == []


def test_the_spread_ranks_what_is_not_known_last() -> None:
    assert spread(np.array([[np.nan, np.nan], [0.1, 0.1]]), 2) == [1, 0]
