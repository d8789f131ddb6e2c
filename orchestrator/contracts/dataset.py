"""What every dataset promises: whole splits that never change, of the types that all else relies on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.contracts.claim import Claim, must
from orchestrator.datasets.dataset import Dataset
from orchestrator.splits import COMMON_KEYS

SPLITS = ("train", "test")


def its_fields_are_no_common_keys(dataset: Dataset, root: Path | None = None) -> None:
    kind: Any = type(dataset)
    must(kind.default_root is None or isinstance(kind.default_root, str), f"default_root is {kind.default_root!r}")
    taken = {field.name for field in dataclasses.fields(kind)} & set(COMMON_KEYS)
    must(not taken, f"{', '.join(sorted(taken))} is a key of every dataset, and cannot be a field of one")


def gives_whole_splits_that_never_change(dataset: Dataset, root: Path | None = None) -> None:
    shapes = {}
    for split in SPLITS:
        images, labels = dataset(root, split)
        again = dataset(root, split)
        must(images.dtype == np.uint8 and images.ndim == 4, f"{split}: images are {images.dtype} {list(images.shape)}")
        seen = f"{labels.dtype} {list(labels.shape)}"
        must(labels.dtype == np.int64 and labels.shape == (len(images),), f"{split}: labels are {seen}, not int64 [N]")
        must(len(labels) > 0, f"{split}: it is empty")
        must(labels.min() == 0, f"{split}: the least label is {labels.min()}, not 0")
        must(np.array_equal(images, again[0]), f"{split}: asked again it gives other images, or another order")
        must(np.array_equal(labels, again[1]), f"{split}: asked again it gives other labels, or another order")
        shapes[split] = images.shape[1:]
    must(shapes["train"] == shapes["test"], f"images are {shapes['train']} in train and {shapes['test']} in test")


def what_it_offers_beside_agrees(dataset: Dataset, root: Path | None = None) -> None:
    """`count` and `opened`, which only some have."""
    for split in SPLITS:
        images, labels = dataset(root, split)
        count, opened = getattr(dataset, "count", None), getattr(dataset, "opened", None)
        if count is not None:
            must(count(root, split) == len(labels), f"{split}: count is {count(root, split)}, of {len(labels)}")
        if opened is not None:
            take, all_labels = opened(root, split)
            rows = np.array([3, 0, 3])
            must(np.array_equal(all_labels, labels), f"{split}: opened gives other labels")
            must(np.array_equal(take(rows), images[rows]), f"{split}: opened gives other images for rows 3, 0, 3")


def its_classes_are_whole(dataset: Dataset, root: Path | None = None) -> None:
    train, test = (dataset(root, split)[1] for split in SPLITS)
    missing = sorted(set(range(int(train.max()) + 1)) - set(train.tolist()))
    must(train.max() > 0, "it has one class")
    must(not missing, f"no training example has label {missing[0] if missing else ''}")
    must(test.max() <= train.max(), f"a test label is {test.max()}, of {train.max() + 1} classes in train")


def its_images_are_square(dataset: Dataset, root: Path | None = None) -> None:
    height, width = dataset(root, "train")[0].shape[2:]
    must(height == width, f"they have {height} rows of {width}")


def no_image_is_in_both_splits(dataset: Dataset, root: Path | None = None) -> None:
    train, test = ({image.tobytes() for image in dataset(root, split)[0]} for split in SPLITS)
    must(not train & test, f"{len(train & test)} of {len(test)} test images are training images too")


CLAIMS = (
    Claim(its_fields_are_no_common_keys),
    Claim(gives_whole_splits_that_never_change),
    Claim(what_it_offers_beside_agrees),
    Claim(its_classes_are_whole),
    Claim(its_images_are_square),
    Claim(no_image_is_in_both_splits, is_law=False),
)
