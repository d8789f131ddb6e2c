"""Claims about the study of a cell: it suggests the same whether it was rebuilt or not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from orchestrator.search import Asked, Outcome, Study
from orchestrator.spec import load_spec
from orchestrator.window import Window, WindowedStudy

SPEC: dict[str, Any] = {
    "name": "s",
    "dataset": {"name": "digits"},
    "threat": {"norm": "linf", "eps": 0.1},
    "defense": {"name": "standard"},
    "network": {
        "choice": [{"name": "lenet"}, {"name": "resnet", "depth": {"choice": [8, 14]}, "width": {"log_int": [4, 32]}}]
    },
    "training": {"epochs": 3, "lr": {"log_uniform": [0.01, 0.3]}},
}


def study(
    sampler: str = "tpe",
    directions: tuple[str, ...] = ("maximize",),
    fixed: tuple[Any, ...] = (),
    window: Window = Window(),  # noqa: B008 - frozen
    seed: int = 3,
) -> Study:
    (cell,) = load_spec(SPEC).cells()
    return Study(cell.space, sampler, directions, seed=seed, fixed=fixed, window=window)


def outcome(number: int, lr: float, directions: int) -> Outcome:
    """A trial ends well, is stopped, or fails, by its number."""
    value = -((lr - 0.1) ** 2)
    if number % 5 == 3:
        return Outcome("pruned", None, {1: value - 1})
    if number % 7 == 5:
        return Outcome("failed")
    return Outcome("completed", (value, lr)[:directions], None, {"degenerate": float(number % 4 == 1)})


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "nsga3", "gp"])
@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
@pytest.mark.parametrize("window", [Window(), Window(best=4, newest=6)])
def test_a_rebuilt_study_suggests_what_the_undisturbed_one_does(
    sampler: str, directions: tuple[str, ...], window: Window
) -> None:
    undisturbed, history = study(sampler, directions, window=window), []
    cuts = (11, 14) if sampler == "gp" else (4, 11, 17, 24, 38, 44)  # which is slow, and random for the first ten
    for _ in range(max(cuts) + 1):
        asked, configuration = undisturbed.ask()
        found = outcome(asked.number, configuration.training["lr"], len(directions))
        undisturbed.tell(asked.number, found)
        history.append((asked, found))
    for cut in cuts:
        rebuilt = study(sampler, directions, window=window)
        for asked, found in history[:cut]:
            rebuilt.rebuild(asked, found)
        asked, _ = rebuilt.ask()
        assert asked.params == history[cut][0].params


@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
def test_the_order_in_which_suggestions_end_does_not_move_the_next_one(directions: tuple[str, ...]) -> None:
    first, second = (study("tpe", directions, window=Window(best=5, newest=8)) for _ in range(2))
    for _ in range(6):
        batch = [first.ask() for _ in range(5)]
        assert [asked.params for asked, _ in batch] == [second.ask()[0].params for _ in batch]
        told = [(asked.number, outcome(asked.number, found.training["lr"], len(directions))) for asked, found in batch]
        for number, found in told:
            first.tell(number, found)
        for number, found in reversed(told):
            second.tell(number, found)


def test_a_window_holds_the_best_the_newest_and_what_is_under_way() -> None:
    optuna_study = WindowedStudy([StudyDirection.MAXIMIZE], Window(best=2, newest=3))
    values = [0.1, 0.9, 0.3, None, 0.8, 0.2, 0.4, 0.5]
    for number, value in enumerate(values):
        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        optuna_study.add_trial(create_trial(state=state, value=value))
        optuna_study.note(number)
    assert len(optuna_study.get_trials()) == len(values)
    with optuna_study.looking_back():
        assert [trial.number for trial in optuna_study.get_trials()] == [1, 3, 4, 5, 6, 7]
        assert [trial.number for trial in optuna_study.get_trials(states=(TrialState.RUNNING,))] == [3]
    assert len(optuna_study.get_trials()) == len(values)


def test_qmc_fills_a_dimension_more_evenly_than_chance() -> None:
    """Of 64 points of a Sobol sequence, each 64th of a dimension has one; of random ones about 37 % stay empty."""
    found, low, high = study("qmc"), math.log(0.01), math.log(0.3)
    rates = [math.log(found.ask()[1].training["lr"]) for _ in range(64)]
    assert len({int(64 * (rate - low) / (high - low)) for rate in rates}) == 64


def test_qmc_differs_by_seed_and_keeps_its_place_after_given_settings() -> None:
    plain, other, led = study("qmc"), study("qmc", seed=4), study("qmc", fixed=({"training.lr": 0.25},))
    points = [plain.ask()[0].params for _ in range(4)]
    assert [other.ask()[0].params for _ in range(4)] != points
    assert led.ask()[1].training["lr"] == 0.25
    assert [led.ask()[0].params for _ in range(4)] == points


def test_a_suggestion_under_way_when_the_study_was_rebuilt_can_be_told() -> None:
    first = study()
    asked, _ = first.ask()
    rebuilt = study()
    rebuilt.rebuild(asked, None)
    rebuilt.tell(asked.number, Outcome("completed", (0.5,), None, {"degenerate": 0.0}))
    assert rebuilt.asks == 1


def test_conditional_holes_are_asked_only_where_they_hold() -> None:
    found = study("random")
    for _ in range(30):
        asked, configuration = found.ask()
        has_depth = "network.resnet.depth" in asked.params
        assert has_depth == (configuration.network["name"] == "resnet")


def test_given_settings_come_first() -> None:
    found = study(fixed=({"training.lr": 0.25},))
    _, configuration = found.ask()
    assert configuration.training["lr"] == 0.25
    _, configuration = found.ask()
    assert configuration.training["lr"] != 0.25


def test_every_combination_of_grid_values_is_tried_in_turn() -> None:
    training = {"epochs": {"grid": [2, 3]}, "lr": {"log_uniform": [0.01, 0.3]}, "optimizer": {"grid": ["sgd", "adam"]}}
    (cell,) = load_spec({**SPEC, "training": training}).cells()
    found = Study(cell.space, "tpe", ["maximize"], seed=0)
    seen = []
    for number in range(8):
        asked, configuration = found.ask()
        seen.append((configuration.training["epochs"], configuration.training["optimizer"]))
        found.tell(asked.number, Outcome("completed", (number / 10,)))
    assert sorted(seen[:4]) == [(2, "adam"), (2, "sgd"), (3, "adam"), (3, "sgd")]
    assert seen[4:] == seen[:4]


def test_what_is_recorded_of_a_suggestion_is_plain_json() -> None:
    import json

    asked, _ = study().ask()
    assert isinstance(asked, Asked)
    for value in (asked.params, asked.distributions, asked.sampler_attrs):
        assert json.loads(json.dumps(value)) == value
