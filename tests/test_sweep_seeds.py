"""Claims about `search.seeds`: every configuration trained several times, the mean told, the spread shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from inline import SYNTHETIC, Inline
from rich.console import Console

from orchestrator.analysis import load
from orchestrator.goals import Goals
from orchestrator.leaderboard_table import render
from orchestrator.seeds import trial_seeds
from orchestrator.spec import load_spec

SEEDS = [0, 1_000_003, 2_000_006]
FIGURES = ["trial_id", "seed", "status", "clean_accuracy", "robust_accuracy", "robust_area", "rung_robust_accuracy"]


def noisy(**changes: Any) -> dict[str, Any]:
    search = {"trials": 4, "objectives": {"robust_area": "max"}, "seeds": 3}
    data = {"name": "synthetic", "validation": 60, "noise": 0.5}
    return SYNTHETIC | {"matrix": {"defense": [{"name": "standard"}]}, "dataset": data, "search": search} | changes


def searching(**search: Any) -> dict[str, Any]:
    return noisy(search=noisy()["search"] | search)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    return Inline(tmp_path_factory.mktemp("store") / "tiny", noisy()).run()


def searched(run: Inline) -> pd.DataFrame:
    return run.store.read("trials").query("stage == 'search'")


def figures(run: Inline) -> pd.DataFrame:
    return run.store.read("trials")[FIGURES].sort_values("trial_id").reset_index(drop=True)


def told(run: Inline) -> dict[int, Any]:
    """What the study of the only cell has heard, by number."""
    (study,) = run.sweep.studies.values()
    return {trial.number: (trial.state.name, trial.values) for trial in study._study.get_trials()}


def test_what_is_not_stopped_early_is_trained_with_every_seed_and_what_is_with_one(finished: Inline) -> None:
    trials = searched(finished)
    assert trials["config_id"].nunique() == 4  # a configuration is one of `trials`
    whole = trials.groupby("config_id").filter(lambda rows: (rows["status"] == "completed").all())
    assert whole.groupby("config_id")["seed"].apply(sorted).map(tuple).unique().tolist() == [tuple(SEEDS)]
    stopped = trials[trials["status"] == "pruned"]
    assert len(stopped)
    assert set(stopped["seed"]) == {SEEDS[0]}
    assert len(whole) + len(stopped) == len(trials)


def test_the_search_hears_the_mean_over_seeds_once_for_each_configuration(finished: Inline) -> None:
    asks = finished.store.read("asks").set_index("trial_id")["number"]
    trials = searched(finished)
    heard = told(finished)
    assert len(heard) == 4
    for _, rows in trials.groupby("config_id"):
        state, values = heard[int(asks[rows["trial_id"].iloc[0]])]
        if len(rows) == 1:
            assert state == "PRUNED"
        else:
            assert state == "COMPLETE"
            assert values == pytest.approx([rows["robust_area"].mean()])
            assert rows["robust_area"].nunique() > 1


def test_risk_tells_what_is_that_many_spreads_worse(finished: Inline, tmp_path: Path) -> None:
    cautious = Inline(tmp_path / "tiny", searching(sampler="random", risk=2.0)).run()
    asks = cautious.store.read("asks").set_index("trial_id")["number"]
    heard = told(cautious)
    several = [rows for _, rows in searched(cautious).groupby("config_id") if len(rows) > 1]
    assert several
    for rows in several:
        _, values = heard[int(asks[rows["trial_id"].iloc[0]])]
        assert values == pytest.approx([rows["robust_area"].mean() - 2 * rows["robust_area"].std()])


def test_risk_makes_what_is_to_be_small_larger() -> None:
    goals = Goals({"robust_area": "max", "seconds": "min"}, {})
    figures, spread = {"robust_area": 0.5, "seconds": 10.0}, {"robust_area": 0.1, "seconds": 2.0}
    assert goals.worsened(figures, spread, 1.5) == pytest.approx({"robust_area": 0.35, "seconds": 13.0})


def test_finalists_come_from_the_configurations_with_the_best_means(finished: Inline) -> None:
    means = searched(finished).query("status == 'completed'").groupby("config_id")["robust_area"].mean()
    finalists = finished.store.read("trials").query("stage == 'finalist'")
    assert set(finalists["config_id"]) == {means.idxmax()}
    assert set(finalists["seed"]).isdisjoint(SEEDS)


def test_the_leaderboard_shows_mean_spread_and_number_of_seeds(finished: Inline) -> None:
    run = load(finished.root)
    trials, board = searched(finished), run.leaderboard().set_index("config_id")
    assert len(board) == 4
    for config_id, rows in trials.query("status == 'completed'").groupby("config_id"):
        row = board.loc[config_id]
        assert row["final_seeds"] == 3
        assert row["final_robust_accuracy"] == pytest.approx(rows["robust_accuracy"].mean())
        assert row["final_robust_spread"] == pytest.approx(rows["robust_accuracy"].std())
        assert row["train_seconds"] == pytest.approx(rows["train_seconds"].mean())
    console = Console(width=240, file=io.StringIO())
    console.print(render(run))
    assert console.file.getvalue().count(" x3") >= 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("steps", [2, 7])
def test_a_sweep_with_several_seeds_that_was_cut_off_ends_as_the_undisturbed_one(
    finished: Inline, tmp_path: Path, steps: int
) -> None:
    for _ in range(2):
        Inline(tmp_path / "tiny", noisy()).run(steps)
    ended = Inline(tmp_path / "tiny", noisy()).run()
    pd.testing.assert_frame_equal(figures(ended), figures(finished))
    assert told(Inline(ended.root, noisy())) == told(ended)
    assert Inline(ended.root, noisy()).run().trained_rungs == 0


def test_an_extension_trains_what_it_adds_with_every_seed(finished: Inline, tmp_path: Path) -> None:
    Inline(tmp_path / "tiny", searching(trials=2)).run()
    run = Inline(tmp_path / "tiny", searching(trials=4)).run()
    assert set(searched(run)["trial_id"]) == set(searched(finished)["trial_id"])


def test_a_configuration_is_judged_by_the_seeds_that_did_not_fail(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", searching(trials=2, sampler="random") | {"scheduler": {"name": "none"}})
    train = run._train

    def failing(plan: Any) -> None:
        if plan.stage == "search" and (plan.number == 1 or plan.seed == SEEDS[0]):
            run.sweep.ended(plan, "failed", "out of luck", {})
        else:
            train(plan)

    run._train = failing  # type: ignore[method-assign]
    run.run()
    trials = searched(run)
    assert len(trials) == 6
    assert trials.groupby("seed")["status"].apply(list).to_dict()[SEEDS[0]] == ["failed", "failed"]
    heard = told(run)
    good = trials.query("status == 'completed'")
    assert len(good) == 2
    assert heard[0] == ("COMPLETE", pytest.approx([good["robust_area"].mean()]))
    assert heard[1][0] == "FAIL"
    assert told(Inline(run.root, run.spec.model_dump())) == heard


def test_one_seed_whose_model_is_degenerate_keeps_a_configuration_from_winning(finished: Inline) -> None:
    run = Inline(finished.root, noisy())
    (best,) = run.sweep.best("defense=standard", 1)
    entry = run.sweep.configured[best.plan.config_id]
    entry.trials[-1].is_degenerate = True
    outcome = run.sweep.outcome(entry)
    assert outcome is not None
    assert outcome.constraints == {"degenerate": 1.0}
    assert run.sweep.best("defense=standard", 1) != [best]


def test_other_seeds_or_another_risk_under_the_same_name_are_refused(finished: Inline) -> None:
    for changes in ({"seeds": 2}, {"risk": 1.0}):
        with pytest.raises(Exception, match=rf"search\.{next(iter(changes))}"):
            Inline(finished.root, searching(**changes))


def test_one_seed_is_the_default_and_no_seed_is_that_of_a_finalist() -> None:
    assert load_spec(SYNTHETIC).search.seeds == 1
    assert trial_seeds(7, 1) == [7]
    seeds, finalists = trial_seeds(7, 1000), {7 + 1 + turn for turn in range(1000)}
    assert finalists.isdisjoint(seeds)
    assert len(set(seeds)) == 1000
    assert np.diff(seeds).min() > 1000
