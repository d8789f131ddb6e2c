"""Claims about the sweep as a whole, run in one process: what it decides and what the store then says."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline

from orchestrator.errors import UserError
from orchestrator.sweep import Sweep

FIGURES = ["trial_id", "status", "stage", "clean_accuracy", "robust_accuracy", "robust_area", "rung_robust_accuracy"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    return Inline(tmp_path_factory.mktemp("store") / "tiny").run()


def figures(run: Inline) -> pd.DataFrame:
    return run.store.read("trials")[FIGURES].sort_values("trial_id").reset_index(drop=True)


def test_every_cell_gets_its_trials_and_its_finalists(finished: Inline) -> None:
    trials = finished.store.read("trials")
    counts = trials.groupby(["cell", "stage"]).size().to_dict()
    for cell in ("defense=standard", "defense=pgd_at"):
        assert counts[cell, "search"] == 4
        assert counts[cell, "finalist"] == 2
    assert trials["trial_id"].is_unique
    assert set(trials["status"]) == {"completed", "pruned"}


def test_rows_of_attacks_say_what_rows_of_examples_say(finished: Inline) -> None:
    attacks, examples = finished.store.read("attacks"), finished.store.read("examples")
    said = attacks[attacks["evaluation"] != "rung"]
    assert len(said)
    key = ["trial_id", "evaluation", "attack_id", "eps"]
    grain = examples.groupby(key)["robust"].agg(["mean", "size"])
    for row in said.to_dict("records"):
        assert grain.loc[tuple(row[k] for k in key), "mean"] == pytest.approx(row["robust_accuracy"])
        assert grain.loc[tuple(row[k] for k in key), "size"] == row["n"]


def test_rows_of_trials_say_what_rows_of_examples_say(finished: Inline) -> None:
    trials, examples = finished.store.read("trials"), finished.store.read("examples")
    for row in trials[trials["evaluation"].notna()].to_dict("records"):
        mine = examples[(examples["trial_id"] == row["trial_id"]) & (examples["evaluation"] == row["evaluation"])]
        at_eps = mine[mine["eps"] == row["eps"]]
        assert at_eps.groupby("example_id")["robust"].min().mean() == pytest.approx(row["robust_accuracy"])
        curve = [
            mine[mine["eps"] == row["eps"] * part].groupby("example_id")["robust"].min().mean()
            for part in (0.25, 0.5, 1)
        ]
        assert sum(curve) / 3 == pytest.approx(row["robust_area"])


def test_finalists_have_fresh_seeds_and_are_measured_on_the_test_split_only(finished: Inline) -> None:
    trials, attacks = finished.store.read("trials"), finished.store.read("attacks")
    finalists = trials[trials["stage"] == "finalist"]
    assert set(finalists["seed"]) == {1, 2}
    assert set(trials.loc[trials["stage"] == "search", "seed"]) == {0}
    tested = attacks[attacks["split"] == "test"]
    assert set(tested["trial_id"]) == set(finalists["trial_id"])
    assert set(tested["evaluation"]) == {"test"}


def test_final_figures_come_from_validation_examples_that_no_rung_used(finished: Inline) -> None:
    examples = finished.store.read("examples")
    final = set(examples.loc[examples["evaluation"] == "final", "example_id"])
    validation = finished.data["defense=standard"].validation
    assert len(final) == 36
    assert final.isdisjoint(validation.example_ids[:24].tolist())
    assert final <= set(validation.example_ids.tolist())


def test_pruned_trials_are_worse_than_one_that_went_on(finished: Inline) -> None:
    trials, epochs = finished.store.read("trials"), finished.store.read("epochs")
    pruned = trials[trials["status"] == "pruned"]
    assert len(pruned)
    assert (epochs.groupby("trial_id")["epoch"].max().loc[pruned["trial_id"]] < 3).all()


def test_a_finished_sweep_computes_nothing(finished: Inline) -> None:
    again = Inline(finished.root)
    assert again.sweep.is_searched
    assert again.run().trained_rungs == 0


@pytest.mark.parametrize("steps", [1, 3, 6, 11])
def test_a_sweep_that_was_cut_off_ends_as_the_undisturbed_one(finished: Inline, tmp_path: Path, steps: int) -> None:
    Inline(tmp_path / "tiny").run(steps)
    Inline(tmp_path / "tiny").run(steps)
    ended = Inline(tmp_path / "tiny").run()
    pd.testing.assert_frame_equal(figures(ended), figures(finished))
    keys = ["trial_id", "epoch", "loss", "robust_accuracy"]
    ours, theirs = (
        run.store.read("epochs")[keys].sort_values(keys[:2]).reset_index(drop=True) for run in (ended, finished)
    )
    pd.testing.assert_frame_equal(ours, theirs)
    assert "conflict" not in set(ended.store.read("events")["kind"])


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    spec = copy.deepcopy(SYNTHETIC)
    for section, settings in sections.items():
        spec[section] = {**spec.get(section, {}), **settings}
    return spec


def test_more_trials_extend_a_finished_sweep(finished: Inline, tmp_path: Path) -> None:
    def trained(trials: int) -> pd.DataFrame:
        return figures(
            Inline(tmp_path / "tiny", changed(search={"trials": trials}, evaluation={"test": {"finalists": 0}})).run()
        )

    small, grown = trained(2), trained(4)
    assert (len(small), len(grown)) == (4, 8)
    assert set(small["trial_id"]) < set(grown["trial_id"])


def test_another_space_under_the_same_name_is_refused_with_the_difference(finished: Inline) -> None:
    with pytest.raises(UserError, match=r"training\.epochs"):
        Inline(finished.root, changed(training={"epochs": 4}))


def test_a_trial_that_fails_is_a_row_with_its_traceback_and_the_sweep_goes_on(tmp_path: Path) -> None:
    spec = changed(training={"lr": {"choice": [1e18, 0.05]}}, search={"trials": 4, "sampler": "random"})
    run = Inline(tmp_path / "tiny", spec).run()
    trials = run.store.read("trials")
    failed = trials[trials["status"] == "failed"]
    assert len(failed)
    assert failed["error"].str.contains("TrainingDiverged").all()
    assert (trials["status"] == "completed").any()


def test_a_search_in_a_finite_space_ends_when_everything_was_tried(tmp_path: Path) -> None:
    spec = changed(
        training={"lr": {"choice": [0.05, 0.1]}, "weight_decay": 0.0}, search={"trials": 30, "sampler": "random"}
    )
    run = Inline(tmp_path / "tiny", spec).run()
    searched = run.store.read("trials").query("stage == 'search'")
    assert searched.groupby("cell").size().tolist() == [2, 2]
    assert (run.store.read("events")["kind"] == "repeat").sum() >= 20


def test_a_setting_that_cells_type_differently_is_a_column_of_text(tmp_path: Path) -> None:
    spec = changed(search={"trials": 1}, evaluation={"test": {"finalists": 0}})
    spec["matrix"] = {
        "network": [
            {"name": "mlp", "widths": [{"choice": [8, 16]}]},
            {"name": "mlp", "widths": {"choice": [[8], [16, 8]]}},
        ]
    }
    spec["defense"] = {"name": "standard"}
    spec["network"] = None
    trials = Inline(tmp_path / "tiny", spec).run().store.read("trials")
    assert len(trials) == 2
    assert set(trials["status"]) <= {"completed", "pruned"}


def lacking_rows(run: Inline) -> Inline:
    """The run as a driver leaves it that dies before it writes a row of `trials`."""
    for name in run.store.names("trials"):
        (run.root / "trials" / f"{name}.parquet").unlink()
    return Inline(run.root)


def test_rows_that_a_killed_driver_did_not_write_are_written_by_the_next(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", changed(search={"trials": 2})).run()
    before = figures(run)
    again = lacking_rows(run)
    pd.testing.assert_frame_equal(figures(again), before)


def test_cells_that_share_a_configuration_each_have_a_trial_of_their_own(tmp_path: Path) -> None:
    spec = changed(
        search={"trials": 2}, evaluation={"test": {"finalists": 0}}, training={"lr": 0.05, "weight_decay": 0.0}
    )
    spec["matrix"] = {"defense": [{"name": "standard"}, {"name": "standard"}]}
    run = Inline(tmp_path / "tiny", spec).run()
    trials = run.store.read("trials")
    assert trials["trial_id"].is_unique
    assert trials.groupby("cell").size().to_dict() == {"defense=standard": 1, "defense=standard.2": 1}
    again = Inline(tmp_path / "tiny", spec)
    assert {name: study.asks for name, study in again.sweep.studies.items()} == {
        name: study.asks for name, study in run.sweep.studies.items()
    }


def test_a_search_that_tried_everything_is_over_for_the_next_driver_too(tmp_path: Path) -> None:
    spec = changed(
        search={"trials": 30, "sampler": "random"}, training={"lr": {"choice": [0.05, 0.1]}, "weight_decay": 0.0}
    )
    run = Inline(tmp_path / "tiny", spec).run()
    repeats = (run.store.read("events")["kind"] == "repeat").sum()
    again = Inline(tmp_path / "tiny", spec)
    assert again.sweep.is_searched
    assert (again.run().store.read("events")["kind"] == "repeat").sum() == repeats


@pytest.mark.parametrize("rung", [{"attacks": ["fgsm"]}, {"examples": 23}])
def test_rungs_measured_otherwise_are_not_mixed_into_a_sweep(finished: Inline, rung: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"evaluation\.rung\.(attacks|examples): was .*, now"):
        Inline(finished.root, changed(evaluation={"rung": {**SYNTHETIC["evaluation"]["rung"], **rung}}))


def test_other_data_under_the_same_name_are_refused(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", changed(search={"trials": 1}, evaluation={"test": {"finalists": 0}})).run()
    sizes = {name: replace(size, fingerprint="other/data") for name, size in run.sweep.sizes.items()}
    with pytest.raises(UserError, match="have changed"):
        Sweep(run.spec, run.store, sizes)


def test_a_lost_provenance_is_written_again(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", changed(search={"trials": 1}, evaluation={"test": {"finalists": 0}}))
    (run.root / "provenance.json").unlink()
    assert Inline(run.root, changed(search={"trials": 1}, evaluation={"test": {"finalists": 0}})).run()
    assert run.store.read("trials")["code_version"].notna().all()
