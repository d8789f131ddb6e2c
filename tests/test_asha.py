"""Claims about successive halving."""

from orchestrator.asha import SuccessiveHalving
from orchestrator.rungs import rungs


def test_rungs_are_geometric_and_end_at_the_last_epoch() -> None:
    assert rungs(30, grace_epochs=1, reduction_factor=3) == [1, 3, 9, 27, 30]
    assert rungs(9, grace_epochs=1, reduction_factor=3) == [1, 3, 9]
    assert rungs(2, grace_epochs=5, reduction_factor=3) == [2]


def test_rungs_are_counted_from_the_epoch_at_which_a_defense_is_ready() -> None:
    assert rungs(30, grace_epochs=2, reduction_factor=3, ready_epoch=10) == [12, 16, 28, 30]


def test_a_fractional_factor_gives_no_rung_twice() -> None:
    found = rungs(10, grace_epochs=1, reduction_factor=1.2)
    assert found == sorted(set(found))
    assert found[-1] == 10


def test_the_best_third_goes_on() -> None:
    halving = SuccessiveHalving(3)
    for place in range(9):
        halving.record("all", 1, f"t{place}", (place / 10,))
    assert [t for t in halving.rungs["all", 1].figures if halving.goes_on("all", 1, t)] == ["t6", "t7", "t8"]


def test_the_first_at_a_rung_goes_on_and_a_worse_second_does_not() -> None:
    halving = SuccessiveHalving(3)
    halving.record("all", 1, "first", (0.5,))
    assert halving.goes_on("all", 1, "first")
    halving.record("all", 1, "second", (0.4,))
    assert not halving.goes_on("all", 1, "second")


def test_recording_a_figure_twice_changes_nothing() -> None:
    halving = SuccessiveHalving(2)
    for _ in range(3):
        halving.record("all", 1, "a", (0.5,))
    halving.record("all", 1, "b", (0.4,))
    halving.record("all", 1, "c", (0.3,))
    assert [halving.goes_on("all", 1, t) for t in "abc"] == [True, True, False]


def test_cells_and_epochs_do_not_compete() -> None:
    halving = SuccessiveHalving(3)
    halving.record("x", 1, "a", (0.9,))
    halving.record("y", 1, "b", (0.1,))
    halving.record("x", 3, "c", (0.1,))
    assert halving.goes_on("y", 1, "b")
    assert halving.goes_on("x", 3, "c")


def test_with_two_objectives_the_front_goes_on() -> None:
    halving = SuccessiveHalving(2)
    figures = {"a": (0.9, 0.1), "b": (0.1, 0.9), "c": (0.05, 0.05), "d": (0.08, 0.04)}
    for trial, values in figures.items():
        halving.record("all", 1, trial, values)
    assert [halving.goes_on("all", 1, t) for t in figures] == [True, True, False, False]


def test_a_degenerate_model_ranks_last_whatever_its_figures() -> None:
    halving = SuccessiveHalving(2)
    halving.record("all", 1, "constant", (0.99,), is_degenerate=True)
    halving.record("all", 1, "honest", (0.01,))
    assert halving.goes_on("all", 1, "honest")
    assert not halving.goes_on("all", 1, "constant")
