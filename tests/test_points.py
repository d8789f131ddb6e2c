"""Claims about suggestions that are given: every point of a grid once, and CMA-ES that goes on after a restart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.errors import SpecError
from orchestrator.evolution import EvolvingPoints, numbers_of
from orchestrator.gridpoints import GridPoints, endless
from orchestrator.sampler_limits import sampler_remarks
from orchestrator.search import Outcome, Study
from orchestrator.spec import load_spec

SPEC: dict[str, Any] = {
    "name": "s",
    "dataset": {"name": "digits"},
    "threat": {"norm": "linf", "eps": 0.1},
    "defense": {"name": "standard"},
    "network": {
        "choice": [{"name": "lenet"}, {"name": "resnet", "depth": {"choice": [8, 14]}, "width": {"int": [4, 6]}}]
    },
    "training": {"epochs": 3, "lr": {"uniform": [0.1, 0.3], "step": 0.1}},
}


def study(sampler: str, **changes: Any) -> Study:
    (cell,) = load_spec(SPEC | changes).cells()
    return Study(cell.space, sampler, ["maximize"], seed=3, fixed=cell.fixed)


def test_a_grid_tries_every_configuration_once_whatever_depends_on_what() -> None:
    (cell,) = load_spec(SPEC).cells()
    assert endless(cell.space) == []
    search, found = study("grid"), []
    for number in range(21):
        asked, configuration = search.ask()
        found.append(json.dumps(configuration.params, sort_keys=True))
        search.tell(asked.number, Outcome("failed"))
        assert len(set(found)) == number + 1
    assert cell.space.size() == 21 == 3 * (1 + 2 * 3)
    assert json.dumps(search.ask()[1].params, sort_keys=True) == found[0]  # and begins again


def test_a_grid_needs_steps() -> None:
    (cell,) = load_spec(SPEC | {"training": {"lr": {"uniform": [0.1, 0.3]}}}).cells()
    with pytest.raises(ValueError, match=r"unlike training\.lr"):
        GridPoints(cell.space)


HOLES = {
    "a": FloatDistribution(1e-3, 10.0, log=True),
    "b": IntDistribution(0, 100),
    "c": CategoricalDistribution(("x", "y")),
    "d": FloatDistribution(-1.0, 1.0),
    "one": IntDistribution(3, 3),
}


def worth(point: dict[str, Any]) -> tuple[float, ...]:
    """Best at a = 0.3, b = 70, d = 0.5."""
    return (0.0, (np.log10(point["a"] / 0.3)) ** 2 + (point["b"] - 70) ** 2 / 400 + 4 * (point["d"] - 0.5) ** 2)


def test_evolution_moves_in_numbers_and_finds_the_best_of_them() -> None:
    points = EvolvingPoints(numbers_of(HOLES), seed=0)
    for place in range(300):
        point = points.point(place)
        assert point.keys() == {"a", "b", "d"}
        points.ended(place, worth(point))
    assert point["a"] == pytest.approx(0.3, rel=0.2)
    assert point["b"] == pytest.approx(70, abs=2)
    assert point["d"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_evolution_is_the_same_when_it_was_rebuilt_whoever_ended_late(seed: int) -> None:
    """Eight at a time; what was asked for and how it ended is all that the rebuilt one has."""
    rng, points = np.random.default_rng(seed), EvolvingPoints(numbers_of(HOLES), seed=seed)
    running, ended, attrs = dict[int, dict[str, Any]](), dict[int, tuple[float, ...]](), list[Any]()
    for place in range(120):
        running[place] = points.point(place)
        attrs.append(json.loads(json.dumps(points.attrs(place))))
        while len(running) > 7:
            late = int(rng.choice(list(running)))
            ended[late] = (float("inf"),) if late % 6 == 1 else worth(running[late])
            points.ended(late, ended[late])
            del running[late]
    rebuilt = EvolvingPoints(numbers_of(HOLES), seed=seed)
    for place in range(120):
        rebuilt.restore(place, attrs[place])
        if place in ended:
            rebuilt.ended(place, ended[place])
    assert attrs[-1]["cma:generation"] >= 2
    for place in range(120, 140):
        assert rebuilt.point(place) == points.point(place)
        for each in (points, rebuilt):
            each.ended(place, (0.0, float(place % 7)))


def test_evolution_through_a_study_learns_from_what_was_told() -> None:
    spec = {
        "network": {"name": "lenet"},
        "training": {"epochs": 3, "lr": {"log_uniform": [1e-3, 1]}, "momentum": {"uniform": [0, 0.9]}},
    }
    search, history = study("cmaes", **spec), []
    for _ in range(80):
        asked, found = search.ask()
        value = -((np.log10(found.training["lr"]) + 1.5) ** 2) - (found.training["momentum"] - 0.6) ** 2
        history.append((asked, Outcome("failed") if asked.number % 9 == 4 else Outcome("completed", (value,))))
        search.tell(*(asked.number, history[-1][1]))
    assert found.training["momentum"] == pytest.approx(0.6, abs=0.1)
    rebuilt = study("cmaes", **spec)
    for asked, outcome in history:
        rebuilt.rebuild(asked, outcome)
    assert rebuilt.ask()[0] == search.ask()[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"search": {"sampler": "cmaes"}}, "cmaes searches for one objective, got 2"),
        (
            {"search": {"sampler": "cmaes", "objectives": {"robust_area": "max"}}},
            "cmaes cannot search holes that hold only sometimes (all: network.resnet.depth, network.resnet.width)",
        ),
        (
            {"network": {"name": "lenet"}, "search": {"sampler": "cmaes", "objectives": {"robust_area": "max"}}},
            "cmaes needs at least two holes that are numbers (all)",
        ),
        (
            {"training": {"lr": {"uniform": [0.1, 0.3]}}, "search": {"sampler": "grid"}},
            "grid needs a `step`, or lists of values, in training.lr (all)",
        ),
    ],
)
def test_what_a_sampler_cannot_search_is_refused_with_the_holes(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_spec(SPEC | change)
    assert "search.sampler: " in str(refused.value)
    assert text in str(refused.value)


def test_what_a_sampler_leaves_to_chance_is_said() -> None:
    (cell,) = load_spec(SPEC).cells()
    spaces = {"all": cell.space}
    assert sampler_remarks("tpe", 30, spaces) == []
    (chance, few) = sampler_remarks("nsga2", 30, spaces)
    holes = "network.resnet.depth, network.resnet.width"
    assert chance == f"nsga2 draws holes that hold only sometimes at random (all: {holes})"
    assert few == "nsga2 draws the first 20 of 30 trials at random"
    assert sampler_remarks("grid", 20, spaces)[0].startswith("grid would try 21 configurations of all, trials are 20")
