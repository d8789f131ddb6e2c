"""Claims about how far the figures at the rungs rank trials as the final ones do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kendalltau
from test_analysis import add, make_run

from orchestrator.agreement import ALL, kendall_tau
from orchestrator.analysis import Run
from orchestrator.leaderboard_table import render


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Five search trials: cell one agrees but for one of its three pairs, cell two has too few; one was tested."""
    run = make_run(tmp_path / "store" / "s")
    for config, rung, final, cell in (("a", 0.5, 0.4, "one"), ("b", 0.6, 0.55, "one"), ("c", 0.7, 0.5, "one")):
        add(run, config, final, rung_robust_accuracy=rung, cell=cell)
    for config, rung, final in (("d", 0.1, 0.05), ("e", 0.2, 0.15)):
        add(run, config, final, rung_robust_accuracy=rung, cell="two")
    for seed, robust in ((1, 0.4), (2, 0.5)):
        add(run, "b", robust, stage="finalist", seed=seed, cell="one", rung_robust_accuracy=0.9)
    return run


def test_tau_is_that_of_scipy_with_and_without_ties() -> None:
    generator = np.random.default_rng(0)
    for count in (6, 10, 40):
        x, y = generator.random(count), generator.integers(0, 5, count).astype(float)
        assert kendall_tau(x, y, np.zeros(count)) == pytest.approx(kendalltau(x, y).statistic, rel=1e-12)


def test_tau_of_one_order_its_opposite_and_no_order_at_all() -> None:
    x = np.array([0.1, 0.2, 0.3])
    assert kendall_tau(x, 2 * x, np.zeros(3)) == pytest.approx(1)
    assert kendall_tau(x, -x, np.zeros(3)) == pytest.approx(-1)
    assert math.isnan(kendall_tau(x, np.ones(3), np.zeros(3)))


def test_pairs_of_different_groups_do_not_count() -> None:
    x, y = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.8, 0.9, 0.1, 0.2])
    assert kendall_tau(x, y, np.array([0, 0, 1, 1])) == pytest.approx(1)
    assert kendall_tau(x, y, np.zeros(4)) == pytest.approx((2 - 4) / 6)


def test_each_cell_has_its_tau_and_all_of_them_one(run: Run) -> None:
    table = run.agreement().table.set_index("cell")
    assert table.loc["one", "tau"] == pytest.approx((2 - 1) / 3)
    assert table.loc["one", "optimism"] == pytest.approx((0.1 + 0.05 + 0.2) / 3)
    assert math.isnan(table.loc["two", "tau"])
    assert table.loc[ALL, "tau"] == pytest.approx((9 - 1) / 10)
    assert list(table["n"]) == [3, 2, 5]


def test_rung_final_and_test_figures_of_a_finalist_are_side_by_side(run: Run) -> None:
    (row,) = run.agreement().finalists.to_dict("records")
    assert (row["rung"], row["final"], row["test"], row["seeds"]) == (0.6, 0.55, pytest.approx(0.45), 2)


def test_who_cannot_win_does_not_count(run: Run) -> None:
    add(run, "f", 0.9, rung_robust_accuracy=0.0, status="failed")
    assert list(run.agreement().table["n"]) == [3, 2, 5]


def test_the_printed_leaderboard_says_how_far_they_agree(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=160).print(render(run))
    assert "rung and final agree: Kendall's tau 0.80 over 5 trials (one 0.33 over 3)" in capsys.readouterr().out


def test_of_too_few_trials_nothing_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "store" / "s")
    assert run.agreement().line() == ""
    add(run, "a", 0.4, rung_robust_accuracy=0.5)
    assert run.agreement().line() == ""
