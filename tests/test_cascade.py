"""Claims about what a preset stands for: a defense that names losses is attacked with them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import torch
from inline import SYNTHETIC, Inline

from attacks import CASCADES, PGD, Surface, Threat
from orchestrator.cascade import stages
from orchestrator.evaluation import evaluate_robustness
from orchestrator.protocols import MEANING, spec_protocols
from orchestrator.spec import load_spec

LOSSES = ("scaled_cross_entropy", "margin", "dlr", "cross_entropy")


def losses(*arguments: Any) -> list[str]:
    return [json.loads(stage.json)["loss"] for stage in stages(*arguments)]


@pytest.mark.parametrize("surface", [None, Surface(), Surface(draws=10)])
def test_a_preset_is_run_as_it_is_written_where_the_defense_names_no_losses(surface: Surface | None) -> None:
    found = [stage.attack for stage in stages("strong_pgd", surface, 10)]
    assert found == list(CASCADES["strong_pgd"])


def test_a_preset_is_run_with_the_losses_that_the_defense_names_each_once() -> None:
    assert losses("strong_pgd", Surface(losses=LOSSES), 10) == list(LOSSES)
    settings = {(attack["steps"], attack["restarts"]) for attack in map(json.loads, _jsons())}
    assert settings == {(40, 5)}


def _jsons() -> list[str]:
    return [stage.json for stage in stages({"name": "strong_pgd"}, Surface(losses=LOSSES), 10)]


def test_two_classes_have_no_dlr() -> None:
    assert losses("strong_pgd", Surface(losses=LOSSES), 2) == ["scaled_cross_entropy", "margin", "cross_entropy"]


@pytest.mark.parametrize("attack", ["pgd", {"name": "pgd", "steps": 40, "restarts": 5}, PGD()])
def test_an_attack_by_its_own_name_is_run_as_it_is_written(attack: Any) -> None:
    assert losses(attack, Surface(losses=LOSSES), 10) == ["cross_entropy"]


def test_what_was_run_is_in_the_rows_and_is_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASCADES, "strong_pgd", (PGD(steps=2), PGD(steps=2, loss="margin")))
    torch.manual_seed(0)
    x, y, model = (
        torch.rand(12, 1, 4, 4),
        torch.arange(12) % 3,
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)),
    )
    surface = Surface(losses=("scaled_cross_entropy", "dlr"))
    first, second = (
        evaluate_robustness(model, x, y, threat=Threat("linf", 0.05), attacks="strong_pgd", surface=surface)
        for _ in range(2)
    )
    ran = [json.loads(text)["loss"] for text in first.per_attack["attack_json"]]
    assert ran == ["scaled_cross_entropy", "dlr", "margin"]
    pd.testing.assert_frame_equal(first.per_example, second.per_example)


def test_a_sweep_over_pcl_attacks_it_with_its_losses_and_standard_training_without(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASCADES, "strong_pgd", (PGD(steps=2), PGD(steps=2, loss="margin")))
    spec = {
        **SYNTHETIC,
        "matrix": {"defense": [{"name": "standard"}, {"name": "pcl", "cross_entropy_epochs": 0}]},
        "training": {"epochs": 1, "batch_size": 32},
        "search": {"trials": 1, "sampler": "random"},
        "evaluation": {
            "rung": {"examples": 24},
            "final": {"examples": 30},
            "test": {"finalists": 0},
            "naive": {"of": "search", "surface": "none", "attacks": ["strong_pgd"]},
        },
    }
    run = Inline(tmp_path / "tiny", spec).run()
    attacks = run.store.read("attacks").query("evaluation != 'rung'")
    trials = run.store.read("trials").set_index("trial_id")["defense"]
    ran = {
        (trials[trial_id], evaluation): list(dict.fromkeys(json.loads(text)["loss"] for text in rows["attack_json"]))
        for (trial_id, evaluation), rows in attacks.groupby(["trial_id", "evaluation"])
    }
    usual = ["cross_entropy", "margin"]
    assert ran == {
        ("standard", "final"): usual,
        ("standard", "naive"): usual,
        ("pcl", "final"): ["scaled_cross_entropy", "margin", "dlr", "cross_entropy"],
        ("pcl", "naive"): usual,
    }


def test_a_preset_that_means_something_else_by_now_is_another_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = load_spec(SYNTHETIC | {"evaluation": {}}).evaluation.model_dump()
    before = spec_protocols(evaluation)["final"]
    assert [block["loss"] for block in before["attacks"][0][MEANING]] == ["cross_entropy", "margin"]
    monkeypatch.setitem(CASCADES, "strong_pgd", (PGD(steps=50),))
    assert spec_protocols(evaluation)["final"] != before
