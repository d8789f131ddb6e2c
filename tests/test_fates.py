"""Claims about how many trials are expected to reach each rung."""

from __future__ import annotations

import math

import pytest

from orchestrator.asha import SuccessiveHalving
from orchestrator.fates import MOST_SIMULATED, fates


def test_without_rungs_every_trial_reaches_the_top() -> None:
    found = fates(7, [[5]], 3)
    assert (found.top.mean, found.top.low, found.top.high) == (7, 7, 7)
    assert found.epochs.mean == 35


def test_the_first_rung_is_reached_by_all_and_each_later_one_by_fewer() -> None:
    found = fates(64, [[2, 6, 12]], 3)
    assert found.reach[2].mean == 64
    assert 64 > found.reach[6].mean > found.reach[12].mean == found.top.mean > 64 / 9


@pytest.mark.parametrize(("trials", "factor"), [(4, 3), (10, 2), (27, 3)])
def test_the_second_rung_is_reached_as_often_as_a_random_order_says(trials: int, factor: int) -> None:
    """The k-th to arrive is among the best max(1, ceil(k / factor)) of k with just that probability."""
    expected = sum(max(1, math.ceil(k / factor)) / k for k in range(1, trials + 1))
    assert fates(trials, [[1, 2]], factor).reach[2].mean == pytest.approx(expected, rel=0.06)


def test_epochs_are_those_at_which_trials_stop() -> None:
    found = fates(12, [[2, 6]], 3)
    assert found.epochs.mean == pytest.approx(2 * 12 + 4 * found.reach[6].mean)


def test_schedules_that_end_elsewhere_have_rungs_of_their_own() -> None:
    found = fates(40, [[1, 2], [1, 3]], 2)
    assert set(found.reach) == {1, 2, 3}
    assert found.reach[1].mean == 40
    assert found.top.mean == pytest.approx(found.reach[2].mean + found.reach[3].mean)


def test_many_trials_are_a_multiple_of_those_simulated() -> None:
    found = fates(5 * MOST_SIMULATED, [[1, 3]], 3)
    assert found.reach[1].mean == 5 * MOST_SIMULATED
    assert found.reach[3].mean == pytest.approx(5 * MOST_SIMULATED / 3, rel=0.05)


def test_what_is_expected_is_what_the_scheduler_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked, not imitated: where it lets all go on, all are expected at the top."""
    monkeypatch.setattr(SuccessiveHalving, "goes_on", lambda *_: True)
    assert fates(9, [[1, 3, 9]], 3).top.mean == 9
