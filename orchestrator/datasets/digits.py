"""Handwritten digits that ship inside scikit-learn: real 8x8 images, no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from orchestrator.datasets.dataset import Images, Labels

TEST_EVERY = 4


@dataclass(frozen=True)
class Digits:
    """1797 grey images of 10 digits (Alpaydin, Kaynak 1998), 0..16 scaled to 0..255.

    There is no official test split, so every fourth image of each class is one (445 images), whatever the
    sweep's seed. The images come writer by writer, hence both splits see every writer.
    """

    name: ClassVar[str] = "digits"
    default_root: ClassVar[str | None] = None
    shape: ClassVar[tuple[int, int, int]] = (1, 8, 10)
    sizes: ClassVar[dict[str, int]] = {"train": 1352, "test": 445}

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        bunch = _load()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # [N, 8, 8] -> [N, 1, 8, 8]
        labels = bunch.target.astype(np.int64)
        rows = _is_test(labels) == (split == "test")
        return images[rows], labels[rows]

    def count(self, root: Path | None, split: str) -> int:
        is_test = _is_test(_load().target)
        return int((is_test == (split == "test")).sum())


def _load() -> Any:
    from sklearn.datasets import load_digits  # here, since it takes a second that no worker of a sweep should wait

    return load_digits()


def _is_test(labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows are the fourth, eighth, ... of their class. [N] -> bool [N]"""
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return chosen
