"""Claims about models that give one class to nearly everything: whatever their figures, they never win."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline import SYNTHETIC, Inline

from orchestrator.analysis import load
from orchestrator.search import Outcome, Past, Study
from orchestrator.spec import load_spec
from orchestrator.warm_start import warm_start

UNTRAINED = 1e-9


def spec(**changes: Any) -> dict[str, Any]:
    """Two rates, of which one trains nothing. The objective is one at which a model that knows nothing is best."""
    return SYNTHETIC | {
        "matrix": {"defense": [{"name": "standard"}]},
        "training": {"epochs": 2, "batch_size": 32, "lr": {"choice": [UNTRAINED, 0.05]}},
        "search": {"trials": 2, "sampler": "grid", "objectives": {"clean_accuracy": "min"}},
        "scheduler": {"name": "none"},
        **changes,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    return Inline(tmp_path_factory.mktemp("store") / "tiny", spec()).run()


def test_a_model_that_knows_nothing_is_no_finalist_and_has_no_rank(finished: Inline) -> None:
    trials = finished.store.read("trials")
    worst = trials.query("stage == 'search'").set_index("param.training.lr")["clean_accuracy"]
    assert worst[UNTRAINED] < worst[0.05]  # by the objective it would have won
    assert set(trials.query("stage == 'finalist'")["param.training.lr"]) == {0.05}
    assert [record.plan.params["training.lr"] for record in finished.sweep.best("defense=standard", 9)] == [0.05]
    board = load(finished.root).leaderboard()
    assert board["param.training.lr"].tolist() == [0.05, UNTRAINED]
    assert board["rank"].isna().tolist() == board["degenerate"].tolist() == [False, True]
    assert load(finished.root).pareto()["trial_id"].tolist() == board["trial_id"].tolist()[:1]


def test_the_search_hears_its_figures_and_that_it_breaks_a_constraint(finished: Inline) -> None:
    (study,) = finished.sweep.studies.values()
    heard = {trial.params["training.lr"]: trial for trial in study._study.get_trials()}
    assert heard[UNTRAINED].constraints == {"degenerate": 1.0}
    assert heard[0.05].constraints == {"degenerate": 0.0}
    assert study._study.worth(heard[UNTRAINED]) > study._study.worth(heard[0.05])


def test_a_search_that_begins_with_it_hears_that_too(finished: Inline, tmp_path: Path) -> None:
    search = spec()["search"] | {"sampler": "tpe", "warm_start": [str(finished.root)]}
    run = Inline(tmp_path / "next", spec(search=search, name="next"))
    found = warm_start(run.spec, run.store, run.sweep.ledger).past["defense=standard"]
    assert sorted((past.params["training.lr"], past.outcome.constraints) for past in found) == [
        (UNTRAINED, {"degenerate": 1.0}),
        (0.05, {"degenerate": 0.0}),
    ]


def test_where_all_know_nothing_nothing_wins(tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 32, "lr": {"choice": [UNTRAINED, 2e-9]}}
    run = Inline(tmp_path / "tiny", spec(training=training)).run()
    trials = run.store.read("trials")
    assert set(trials["stage"]) == {"search"}
    assert load(run.root).leaderboard()["rank"].isna().all()
    assert load(run.root).pareto().empty


def space() -> Any:
    training = {"epochs": 3, "lr": {"log_uniform": [1e-3, 1.0]}, "momentum": {"uniform": [0.0, 0.9]}}
    (cell,) = load_spec(SYNTHETIC | {"matrix": {"defense": [{"name": "standard"}]}, "training": training}).cells()
    return cell.space


def outcome(rate: float, objectives: int) -> Outcome:
    """Beyond 0.1 every model is degenerate, with the best figures there are; below, the best is at 0.01."""
    is_degenerate = rate > 0.1
    value = 1.0 if is_degenerate else -abs(math.log(rate / 0.01)) / 10
    return Outcome("completed", (value,) * objectives, None, {"degenerate": float(is_degenerate)})


@pytest.mark.parametrize(
    ("sampler", "objectives"),
    [("tpe", 1), ("tpe", 2), ("gp", 1), ("nsga2", 1), ("nsga2", 2), ("nsga3", 2), ("cmaes", 1)],
)
def test_no_sampler_is_drawn_to_where_models_know_nothing(sampler: str, objectives: int) -> None:
    random = Study(space(), "random", ["maximize"] * objectives, seed=1)
    past = []
    for _ in range(60):
        asked, found = random.ask()
        past.append(Past(asked.params, outcome(found.training["lr"], objectives)))
    study, rates = Study(space(), sampler, ["maximize"] * objectives, seed=0, past=past), []
    for _ in range(3 if sampler == "gp" else 30):
        asked, found = study.ask()
        study.tell(asked.number, outcome(found.training["lr"], objectives))
        rates.append(found.training["lr"])
    assert np.mean(np.array(rates) > 0.1) <= 0.2  # a third of the space


def test_the_start_of_cmaes_is_no_model_that_knows_nothing() -> None:
    params = {"training.lr": 0.9, "training.momentum": 0.1}
    lone = Study(space(), "cmaes", ["maximize"], seed=0, past=[Past(params, outcome(0.9, 1))])
    assert lone._best_of_the_past() == {}
    better = Past({"training.lr": 0.002, "training.momentum": 0.1}, outcome(0.002, 1))
    both = Study(space(), "cmaes", ["maximize"], seed=0, past=[Past(params, outcome(0.9, 1)), better])
    assert both._best_of_the_past() == better.params


def test_robust_area_and_clean_accuracy_are_what_a_search_is_after_by_default(tmp_path: Path) -> None:
    search = {"trials": 2, "sampler": "grid"}
    run = Inline(
        tmp_path / "tiny", spec(search=search, evaluation=SYNTHETIC["evaluation"] | {"test": {"finalists": 0}})
    )
    trials = run.run().store.read("trials").set_index("param.training.lr")
    (study,) = run.sweep.studies.values()
    for trial in study._study.get_trials():
        row = trials.loc[trial.params["training.lr"]]
        assert trial.values == pytest.approx([row["robust_area"], row["clean_accuracy"]])
    rungs = run.store.read("attacks").query("evaluation == 'rung'")
    assert sorted(set(rungs["eps"])) == pytest.approx([0.05 / 4, 0.05 / 2, 0.05])
