"""Claims about what is said of a spec and its data before anything is trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline import SYNTHETIC
from rich.console import Console

from orchestrator.cluster import run as cluster_run
from orchestrator.data_check import check_data
from orchestrator.datasets import DATASETS, Images, Labels, Synthetic
from orchestrator.errors import UserError
from orchestrator.progress import Progress
from orchestrator.spec import load_spec
from orchestrator.splits import Split, count_test, load_test, load_training


def spec_of(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**copy.deepcopy(SYNTHETIC), **changes}.items() if value is not None}


def checked(**changes: Any) -> list[str]:
    spec = load_spec(spec_of(**changes))
    splits: dict[str, tuple[Split, Split]] = {
        cell.name: load_training(cell.dataset_block(), spec.seed) for cell in spec.cells()
    }
    return check_data(spec, splits)


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as raised:
        checked(**changes)
    return str(raised.value)


def test_what_goes_together_is_said_nothing_of() -> None:
    assert checked() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"threat": {"norm": "l2", "eps": 128}},
            "threat.eps: must be a fraction of the pixel range, at most 8 for l2 for images of 64 values, got 128; did "
            "you mean 128/255?",
        ),
        (
            {"dataset": {"name": "synthetic"}, "evaluation": {"rung": {"examples": 150}, "final": {"examples": 51}}},
            "dataset synthetic: evaluation: rung.examples and final.examples are different examples of the validation "
            "split, which has 200: 150 and 51 do not fit",
        ),
        (
            {"network": {"name": "mlp", "widths": [10**9, {"choice": [8, 10**9]}]}},
            "network {name: mlp, widths: [1000000000, 1000000000]}: must have at most 1e+11 parameters, got 1.0e+18 "
            "(dataset synthetic: 1x8x8, 10 classes)",
        ),
        (
            {"network": "convnet", "dataset": {"name": "synthetic", "size": 2, "validation": 60}},
            "network {name: convnet}: cannot be built for these images: Given input size: (32x1x1). Calculated output "
            "size: (32x0x0). Output size is too small (dataset synthetic: 1x2x2, 10 classes)",
        ),
        (
            {
                "dataset": {"name": "synthetic", "classes": 2, "validation": 60},
                "evaluation": {"final": {"attacks": ["fgsm", {"name": "pgd", "loss": "dlr"}]}},
            },
            "evaluation.final.attacks[1].loss: dlr needs at least 3 classes, dataset synthetic has 2; use margin or "
            "cross_entropy",
        ),
        (
            {"dataset": {"name": "synthetic", "validation": 60, "test": 251}},
            "dataset.test: must be a whole number in 1..250, got 251",
        ),
    ],
)
def test_what_cannot_work_with_these_data_is_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


def test_what_is_seldom_meant_is_said() -> None:
    changes = {
        "dataset": {"name": "synthetic", "validation": 8, "train": 100},
        "training": {"epochs": 2, "batch_size": {"choice": [32, 500]}},
        "scheduler": {"grace_epochs": 1},
        "evaluation": {"rung": {"examples": 2}, "final": {"examples": 2}, "test": {"examples": 9999}},
    }
    batch, validation, test = checked(**changes)
    assert batch == (
        "training.batch_size: up to 500, and dataset synthetic has 100 training images: an epoch is one step there"
    )
    assert validation.startswith("dataset.validation: 2 of 10 classes have none of the 8 validation images: ")
    assert test == "evaluation.test.examples: 9999, but the test split has 250: all of them are used"


class Oblong(Synthetic):
    name = "oblong"

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        images, labels = super().__call__(root, split)
        return np.concatenate([images, images], axis=2), labels


def test_images_that_are_not_square_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "oblong", Oblong)
    said = refusal(dataset={"name": "oblong", "validation": 60})
    assert said == "dataset oblong: images must be square, got 16 rows of 8"


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_the_test_split_is_counted_without_being_read(name: str) -> None:
    assert count_test({"name": name}) == len(load_test({"name": name}, 0).labels)
    assert count_test({"name": name, "test": 30}) == 30


def test_a_test_split_that_is_missing_is_said_before_training(tmp_path: Path) -> None:
    block = {"name": "mnist", "root": str(tmp_path)}
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte is not there"):
        count_test(block)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"")
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0" * 78)
    assert count_test(block) == 70  # junk, which nobody has looked at


def test_a_sweep_that_cannot_begin_leaves_nothing_on_record(tmp_path: Path) -> None:
    """Put right, the same name and store are free for it."""
    spec = load_spec(spec_of(dataset={"name": "mnist", "root": str(tmp_path / "nowhere")}))
    with pytest.raises(UserError, match="is not there"):
        cluster_run.run_sweep(spec, tmp_path / "store" / "tiny", Progress(Console(quiet=True)))
    assert [path.name for path in (tmp_path / "store" / "tiny").iterdir() if not path.name.startswith(".")] == []
