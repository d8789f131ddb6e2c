"""Claims about what `robustsweep check` says a sweep will be."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from inline import SYNTHETIC, Inline
from rich.console import Console

from attacks import ATTACKS, Threat
from defenses import NETWORKS
from orchestrator.attack_passes import MOST_CALLS, most_passes
from orchestrator.build import make, normalised
from orchestrator.cli import main
from orchestrator.datasets import DATASETS
from orchestrator.footprint import footprint
from orchestrator.known_sizes import known_sizes
from orchestrator.outlook import doubtful, outlook
from orchestrator.parameter_count import parameter_count
from orchestrator.preview import preview
from orchestrator.spec import Spec, load_spec
from orchestrator.splits import load_test, load_training

SWEEPS = Path(__file__).parent.parent / "sweeps"
LINF = Threat("linf", 0.1)


def spec(**changes: Any) -> Spec:
    return load_spec({**SYNTHETIC, "name": "s", **changes})


@pytest.mark.parametrize(
    ("attack", "passes"),
    [
        ({"name": "fgsm"}, (1, 1)),
        ({"name": "pgd", "steps": 7, "keep": "last"}, (7, 7)),
        ({"name": "pgd", "steps": 7}, (8, 7)),  # the last point is scored too
        ({"name": "pgd", "steps": 7, "restarts": 3}, (24, 21)),
        ({"name": "feature_pgd", "steps": 5}, (6, 5)),
    ],
)
def test_an_attack_is_counted_at_its_dearest(attack: dict[str, Any], passes: tuple[int, int]) -> None:
    assert most_passes(normalised(ATTACKS, attack), LINF) == passes


def test_an_attack_without_an_end_in_sight_is_not_counted() -> None:
    assert most_passes(normalised(ATTACKS, {"name": "pgd", "steps": MOST_CALLS}), LINF) is None


@pytest.mark.parametrize("name", ["mlp", "lenet", "convnet", "resnet", "wide_resnet"])
def test_parameters_are_counted_without_making_them(name: str) -> None:
    block = normalised(NETWORKS, {"name": name})
    made = make(NETWORKS, block)(3, 32, 10)
    assert parameter_count(block, (3, 32, 10)) == sum(parameter.numel() for parameter in made.parameters())


def test_a_network_that_takes_no_such_images_has_no_count() -> None:
    assert parameter_count(normalised(NETWORKS, {"name": "torchvision", "model": "vit_b_16"}), (3, 30, 10)) is None


@pytest.mark.parametrize(
    "block",
    [{"name": "digits"}, {"name": "digits", "validation": 90, "train": 200}, {"name": "synthetic", "examples": 400}],
)
def test_sizes_known_before_reading_are_those_of_the_data(block: dict[str, Any]) -> None:
    dataset = spec(dataset=block).cells()[0].dataset
    known, (train, validation) = known_sizes(dataset), load_training(dataset.block(), 0)
    channels, height, _ = train.images.shape[1:]
    assert known.shape == (channels, height, train.classes)
    assert (known.train, known.validation) == (len(train.labels), len(validation.labels))
    assert known.test == len(load_test(dataset.block(), 0).labels)


def test_every_dataset_that_says_its_shape_says_its_sizes() -> None:
    for name, kind in DATASETS.items():
        if getattr(make(DATASETS, {"name": name}), "shape", None) is not None:
            assert set(make(DATASETS, {"name": name}).sizes) == {"train", "test"}, kind


def test_a_small_space_has_no_more_trials_than_configurations() -> None:
    training = {"epochs": {"choice": [1, 2]}, "lr": {"grid": [0.01, 0.1]}}
    found = outlook(spec(training=training, search={"trials": 9}))
    assert [cell.trials for cell in found.cells] == [4, 4]
    assert "defense=standard: has 4 configurations only, trials are 9" in doubtful(found)


def test_an_evaluation_that_the_data_will_refuse_is_said_before() -> None:
    evaluation = {"rung": {"examples": 200}, "final": {"examples": 200}}
    lines = doubtful(outlook(spec(dataset={"name": "digits"}, evaluation=evaluation)))
    refused = "defense=standard: will be refused: rung.examples and final.examples are different examples"
    assert any(line.startswith(refused) for line in lines)


def test_a_run_leaves_what_was_said(tmp_path: Path) -> None:
    """Nothing is stopped early here, so all is known beforehand: rows, files at most, bytes about."""
    given = {**SYNTHETIC, "scheduler": {"name": "none"}, "search": {"trials": 2, "sampler": "random"}}
    run = Inline(tmp_path / "s", given).run()
    said = footprint(outlook(run.sweep.spec)).tables
    for name, table in said.items():
        rows = pd.read_parquet(run.root / name)
        if name == "events":  # doubts come on top: who knows beforehand
            rows = rows[~rows["kind"].str.contains(":")]
        assert table.rows == len(rows), name
        parts = [path for path in (run.root / name).glob("*.parquet") if not path.name.startswith("0-schema")]
        assert len(parts) <= table.parts, name
    low, high = footprint(outlook(run.sweep.spec)).checkpoint_bytes or (0, 0)
    files = [path.stat().st_size for path in (run.root / "checkpoints").rglob("*.*")]
    assert 0.8 * low <= sum(files) <= 1.2 * high


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plan_of_every_sweep_is_readable_at_100_columns(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=100, markup=False, emoji=False).print(preview(load_spec(path)))
    said = capsys.readouterr().out
    assert "…" not in said
    for heading in ("cells (", "holes of", "evaluations (", "in the end, about", "on this machine:"):
        assert heading in said


def test_the_json_of_a_plan_has_what_the_text_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["robustsweep", "check", str(SWEEPS / "quickstart.yaml"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    plan = json.loads(capsys.readouterr().out)
    found = outlook(load_spec(SWEEPS / "quickstart.yaml"))
    assert plan["trials"] == {"search": 8, "finalists": 4}
    assert [cell["name"] for cell in plan["cells"]] == ["defense=standard", "defense=pgd_at"]
    assert plan["cells"][1]["reach"]["10"] == asdict(found.cells[1].fates.reach[10])
    assert plan["evaluations"][0]["attacks"][0][1] == [11, 10]
    assert plan["store"]["tables"]["asks"]["rows"] == 12
    assert "forecast" not in plan


def test_torch_is_left_as_it_was() -> None:
    before = torch.random.get_rng_state()
    outlook(spec())
    assert torch.equal(before, torch.random.get_rng_state())
