"""Claims about the study of a cell: it suggests the same whether it was rebuilt or not."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.search import Asked, Outcome, Study
from orchestrator.spec import load_spec

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


def study(sampler: str = "tpe", directions: tuple[str, ...] = ("maximize",), fixed: tuple[Any, ...] = ()) -> Study:
    (cell,) = load_spec(SPEC).cells()
    return Study(cell.space, sampler, directions, seed=3, fixed=fixed)


def outcome(number: int, lr: float, directions: int) -> Outcome:
    """A trial ends well, is stopped, or fails, by its number."""
    value = -((lr - 0.1) ** 2)
    if number % 5 == 3:
        return Outcome("pruned", None, {1: value - 1})
    if number % 7 == 5:
        return Outcome("failed")
    return Outcome("completed", (value, lr)[:directions], None, {"degenerate": float(number % 4 == 1)})


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
def test_a_rebuilt_study_suggests_what_the_undisturbed_one_does(sampler: str, directions: tuple[str, ...]) -> None:
    undisturbed, history = study(sampler, directions), []
    for _ in range(25):
        asked, configuration = undisturbed.ask()
        found = outcome(asked.number, configuration.training["lr"], len(directions))
        undisturbed.tell(asked.number, found)
        history.append((asked, found))
    for cut in (4, 11, 17, 24):
        rebuilt = study(sampler, directions)
        for asked, found in history[:cut]:
            rebuilt.rebuild(asked, found)
        asked, _ = rebuilt.ask()
        assert asked.params == history[cut][0].params


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
