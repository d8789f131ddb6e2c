"""Reading a run: frames, counts, models, and a leaderboard that lets nobody win who should not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import orchestrator
from attacks.draws import Draws
from defenses import DEFENSES, NETWORKS, Data, Training
from orchestrator.analysis import Run, load
from orchestrator.build import normalised
from orchestrator.errors import UserError
from orchestrator.leaderboard import leaderboard
from orchestrator.lifecycle import ENDED, event
from orchestrator.statistics import wilson_interval
from orchestrator.storage import checkpoints
from orchestrator.storage.schemas import TABLES
from orchestrator.storage.store import Store

SPEC = "name: s\nsearch: {objectives: {robust_area: max}, constraints: {clean_accuracy: '>= 0.8'}}\n"
TWO_OBJECTIVES = "search: {objectives: {robust_area: max, clean_accuracy: max}}\n"
PARAMS = {"training.lr": "float", "network": "string", "network.resnet.depth": "int"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "store" / "s")


def make_run(root: Path, spec: str = SPEC) -> Run:
    store = Store.at(root, PARAMS)
    store.prepare()
    store.write_text("spec.yaml", spec)
    return load(root)


def add(run: Run, config: str, robust: float | None = None, clean: float = 0.9, **others: Any) -> str:
    """A row of `trials`: a search trial with final figures unless said otherwise; gives its id."""
    stage, seed = others.get("stage", "search"), others.get("seed", 0)
    trial_id = f"{config}.{stage}.{seed}"
    row: dict[str, Any] = {
        "sweep": "s", "cell": "all", "trial_id": trial_id, "config_id": config, "seed": seed, "stage": stage,
        "status": "completed", "defense": "pgd_at", "network": "mlp", "dataset": "digits", "norm": "linf", "eps": 0.1,
        "params_json": "{}", "param.network": "mlp",
        "doubts": 0, "severe_doubts": 0, "parameters": 10, "train_seconds": 1.0,
    }  # fmt: skip
    if robust is not None:
        row |= {"evaluation": "test" if stage == "finalist" else "final", "n": 100}
        row |= {"clean_accuracy": clean, "robust_accuracy": robust, "robust_area": robust}
    Store.at(run.root, PARAMS).replace("trials", trial_id, [row | others])
    return trial_id


def tell(run: Run, trial_id: str, kind: str, evidence: Any = "") -> None:
    Store.at(run.root).append("events", f"{trial_id}.{kind.replace(':', '_')}", [event(trial_id, kind, evidence)])


def ask(run: Run, trial_id: str, **config: Any) -> None:
    row = {"trial_id": trial_id, "cell": "all", "config_json": json.dumps(config), "params_json": "{}"}
    Store.at(run.root).append("asks", trial_id, [row | {"asked_at": datetime.now(UTC)}])


def configs(frame: pd.DataFrame) -> list[str]:
    return frame["config_id"].to_list()


@pytest.mark.parametrize("table", TABLES)
def test_the_frames_are_what_pandas_reads(run: Run, table: str) -> None:
    trial_id = add(run, "a", 0.5)
    ask(run, trial_id, stage="search")
    tell(run, trial_id, "retry")
    pd.testing.assert_frame_equal(getattr(run, table)(), pd.read_parquet(f"{run.root}/{table}"))


def test_nothing_on_record_is_an_empty_leaderboard(run: Run) -> None:
    board = run.leaderboard()
    assert board.empty
    assert {"rank", "config_id", "test_robust_accuracy", "final_robust_accuracy", "rung_robust_accuracy"} <= {*board}
    assert run.pareto().empty
    assert run.status().to_numpy().sum() == 0


def test_a_leaderboard_without_a_final_figure_goes_by_rungs(run: Run) -> None:
    for config, rung in (("a", 0.1), ("b", 0.3), ("c", None), ("d", 0.2)):
        add(run, config, status="pruned", rung_robust_accuracy=rung)
    assert configs(run.leaderboard()) == ["b", "d", "a", "c"]
    assert run.leaderboard()["rank"].to_list() == [1, 2, 3, 4]
    assert run.pareto().empty


def test_finalists_come_first_then_final_figures_then_rungs_then_failures(run: Run) -> None:
    add(run, "failed", status="failed")
    add(run, "pruned", status="pruned", rung_robust_accuracy=0.99)
    add(run, "better", 0.7)
    add(run, "tested", 0.6)
    add(run, "tested", 0.4, stage="finalist", seed=1)
    board = run.leaderboard()
    assert configs(board) == ["tested", "better", "pruned", "failed"]
    assert board["rank"].fillna(0).to_list() == [1, 2, 3, 0]
    assert board["status"].to_list() == ["completed", "completed", "pruned", "failed"]
    assert board["stage"].to_list() == ["finalist", "search", "search", "search"]


def test_seeds_are_averaged_over_the_same_images_and_figures_of_the_splits_stay_apart(run: Run) -> None:
    add(run, "a", 0.8, clean=0.95, rung_robust_accuracy=0.85, doubts=1)
    for seed, robust in ((1, 0.5), (2, 0.6), (3, 0.4)):
        add(run, "a", robust, clean=0.9, stage="finalist", seed=seed, doubts=1, severe_doubts=1)
    (row,) = run.leaderboard().to_dict("records")
    assert row["trial_id"] == "a.search.0"
    assert row["seeds"] == 3
    assert row["test_robust_accuracy"] == pytest.approx(0.5)
    assert (row["test_robust_min"], row["test_robust_max"], row["test_n"]) == (0.4, 0.6, 100)
    assert (row["test_ci_low"], row["test_ci_high"]) == pytest.approx(wilson_interval(50, 100))
    assert (row["final_ci_low"], row["final_ci_high"]) == pytest.approx(wilson_interval(80, 100))
    assert (row["final_robust_accuracy"], row["rung_robust_accuracy"]) == (0.8, 0.85)
    assert (row["test_clean_accuracy"], row["final_clean_accuracy"]) == (pytest.approx(0.9), 0.95)
    assert (row["doubts"], row["severe_doubts"], row["failed"]) == (4, 3, 0)


def test_a_finalist_of_which_a_seed_failed_counts_the_others_and_says_so(run: Run) -> None:
    add(run, "a", 0.8)
    add(run, "a", 0.5, stage="finalist", seed=1)
    add(run, "a", stage="finalist", seed=2, status="failed")
    (row,) = run.leaderboard().to_dict("records")
    assert (row["status"], row["seeds"], row["failed"], row["rank"]) == ("completed", 1, 1, 1)


def test_a_degenerate_model_never_wins(run: Run) -> None:
    tell(run, add(run, "a", 0.99), "doubt:degenerate")
    tell(run, add(run, "b", 0.3), "doubt:masked")
    add(run, "c", status="pruned", rung_robust_accuracy=0.1)
    tell(run, add(run, "d", 0.2, stage="finalist", seed=1), "doubt:degenerate")
    board = run.leaderboard()
    assert configs(board) == ["b", "c", "d", "a"]
    assert board["degenerate"].to_list() == [False, False, True, True]
    assert board["rank"].isna().to_list() == [False, False, True, True]
    assert configs(run.pareto()) == ["b"]


def test_who_breaks_a_constraint_comes_after_those_who_hold_it(run: Run) -> None:
    add(run, "a", 0.9, clean=0.79)
    add(run, "b", 0.3, clean=0.80)
    add(run, "c", 0.4, clean=0.5, stage="finalist", seed=1)
    add(run, "c", 0.4, clean=0.9)
    board = run.leaderboard()
    assert configs(board) == ["c", "b", "a"]
    assert board["feasible"].to_list() == [False, True, False]  # c by its test figures
    assert configs(run.pareto()) == ["b"]


def test_several_objectives_rank_by_front_and_within_it_by_the_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "s", TWO_OBJECTIVES)
    found = {"a": (0.1, 0.99), "b": (0.5, 0.9), "c": (0.6, 0.7), "d": (0.5, 0.8), "e": (0.05, 0.9), "f": (0.04, 0.7)}
    for config, (robust, clean) in found.items():
        add(run, config, robust, clean)
    board = run.leaderboard()
    assert configs(board) == ["c", "b", "a", "d", "e", "f"]
    assert board["front"].to_list() == [0, 0, 0, 1, 1, 2]
    assert configs(run.pareto()) == ["c", "b", "a"]


def test_objectives_to_be_small_are_ranked_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "s", "search: {objectives: {parameters: min, seconds: min}}\n")
    for config, parameters, seconds in (("a", 10, 5.0), ("b", 5, 6.0), ("c", 11, 7.0)):
        add(run, config, 0.5, parameters=parameters, train_seconds=seconds)
    assert configs(run.leaderboard()) == ["b", "a", "c"]


def test_where_the_area_is_not_known_for_all_the_accuracy_at_eps_decides(run: Run) -> None:
    add(run, "a", 0.5, robust_area=0.9)
    add(run, "b", 0.6, robust_area=None)
    assert configs(run.leaderboard()) == ["b", "a"]


def test_objectives_are_the_default_ones_where_the_spec_names_none(tmp_path: Path) -> None:
    goals = make_run(tmp_path / "s", "name: s\n").goals()
    assert (goals.objectives, goals.constraints) == ({"robust_area": "max", "clean_accuracy": "max"}, {})


def test_only_within_a_dataset_and_a_threat_do_figures_compare(run: Run) -> None:
    add(run, "a", 0.2, eps=0.3)
    add(run, "b", 0.9)
    add(run, "c", 0.3, eps=0.3)
    board = run.leaderboard()
    assert configs(board) == ["c", "a", "b"]
    assert board["rank"].to_list() == [1, 2, 1]
    assert configs(run.pareto()) == ["c", "b"]


def test_only_settings_that_differ_have_a_column(run: Run) -> None:
    add(run, "a", 0.5, **{"param.training.lr": 0.1, "param.network.resnet.depth": 8})
    add(run, "b", 0.4, **{"param.training.lr": 0.1})
    params = [name for name in run.leaderboard() if name.startswith("param.")]
    assert params == ["param.network.resnet.depth"]


def test_a_search_trial_that_someone_tested_keeps_its_place_on_validation_data(run: Run) -> None:
    trial_id = add(run, "a", 0.9, evaluation="test", n=4)
    rows = [(evaluation, example) for evaluation in ("final", "test") for example in range(4)]
    grain = {"trial_id": trial_id, "epoch": 1, "attack": "pgd", "attack_id": "p", "norm": "linf", "eps": 0.1}
    judged = [
        grain | {"evaluation": name, "split": name, "example_id": example, "label": 1, "clean_prediction": 1}
        | {"robust": name == "test" or example == 0}
        for name, example in rows
    ]  # fmt: skip
    counts = {"position": 0, "n": 4, "n_attacked": 4, "n_fooled": 3, "attack_json": "{}"}
    counts |= {"clean_accuracy": 1, "robust_accuracy": 0.25, "ci_low": 0, "ci_high": 1}
    attacks = [grain | counts | {"evaluation": name, "split": name} for name in ("final", "test")]
    Store.at(run.root).append("examples", trial_id, judged)
    Store.at(run.root).append("attacks", trial_id, attacks)
    (row,) = run.leaderboard().to_dict("records")
    assert (row["stage"], row["seeds"], row["final_robust_accuracy"], row["final_n"]) == ("search", 0, 0.25, 4)
    assert np.isnan(row["test_robust_accuracy"])
    assert run.trials()["robust_accuracy"].to_list() == [0.9]
    assert leaderboard(run.trials(), set(), run.goals())["test_robust_accuracy"].isna().all()


def test_status_counts_trials_by_stage_and_state(run: Run) -> None:
    for name, stage in (("a", "search"), ("b", "search"), ("c", "search"), ("d", "finalist")):
        ask(run, f"{name}.{stage}.0", stage=stage)
    add(run, "a", 0.5)
    add(run, "d", stage="finalist", status="failed")
    tell(run, "b.search.0", ENDED, {"status": "completed"})
    counts = run.status()
    assert counts.loc["search"].to_dict() == {"running": 1, "evaluating": 1, "completed": 1, "pruned": 0, "failed": 0}
    assert counts.loc["finalist"].to_dict() == {"running": 0, "evaluating": 0, "completed": 0, "pruned": 0, "failed": 1}


def test_ten_thousand_configurations_are_ranked_as_three_are(run: Run) -> None:
    trial_id = add(run, "a", 0.5)
    row = run.store.read("trials").to_dict("records")[0]
    others = [row | {"trial_id": str(i), "config_id": str(i), "robust_area": i / 10_000} for i in range(10_000)]
    Store.at(run.root, PARAMS).replace("trials", trial_id, others)
    assert configs(run.leaderboard())[:3] == ["9999", "9998", "9997"]


def test_the_model_of_a_trial_is_the_one_that_was_trained(run: Run) -> None:
    images = torch.randint(256, (20, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Data(images, torch.arange(20) % 2, 2)
    blocks = {"network": normalised(NETWORKS, "mlp"), "defense": normalised(DEFENSES, "standard")}
    defense = DEFENSES["standard"]()
    (epoch,) = defense.fit(NETWORKS["mlp"](), data, Training(epochs=1), Draws(0, torch.arange(20)))
    checkpoints.save(run.store.files, "a.search.0", 1, epoch.state, {})
    trial_id = add(run, "a", checkpoint=checkpoints.name_of("a.search.0", 1))
    ask(run, trial_id, **blocks)
    x = images.float() / 255
    model = run.model(trial_id)
    assert torch.equal(model(x), defense.deployed(epoch.state)(x))
    assert model.surface == defense.surface()
    with pytest.raises(UserError, match=r"no model of trial 'b'; trials with a model: a\.search\.0"):
        run.model("b")


@pytest.mark.parametrize("content", ["", "hello", "a: [1", "a: 1\na: 2"])
def test_a_stored_spec_that_is_damaged_is_named(tmp_path: Path, content: str) -> None:
    run = make_run(tmp_path / "damaged", content)
    with pytest.raises(UserError, match=rf"^{tmp_path}/damaged/spec.yaml"):
        run.goals()


def test_a_path_without_a_run_names_the_runs_near_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run here \(spec.yaml is missing\)$"):
        load(tmp_path)
    run = make_run(tmp_path / "s")
    for path in (tmp_path, tmp_path / "typo"):
        with pytest.raises(UserError, match=f"there is one in {run.root}"):
            load(path)
    assert orchestrator.load(str(tmp_path / "s")) == run
