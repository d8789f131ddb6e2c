"""How many examples there are, and of what shape, as far as that is known before any data are read."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.build import make
from orchestrator.cells import DatasetSpec
from orchestrator.datasets import DATASETS


@dataclass(frozen=True)
class Known:
    """`shape` is (channels, height or width, classes); examples by split, null where the data must be looked at."""

    shape: tuple[int, int, int] | None
    train: int | None
    validation: int | None
    test: int | None


def known_sizes(dataset: DatasetSpec) -> Known:
    """By the rules of `splits.load_training`, from what the spec and the dataset's class say."""
    made = make(DATASETS, {"name": dataset.name, **dataset.settings})
    sizes = getattr(made, "sizes", {})
    whole, test = sizes.get("train"), sizes.get("test")
    validation = dataset.validation or (None if whole is None else min(5000, max(1, whole // 5)))
    rest = None if whole is None or validation is None else whole - validation
    return Known(getattr(made, "shape", None), dataset.train or rest, validation, dataset.test or test)
