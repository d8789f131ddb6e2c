"""The files of CIFAR-10 and CIFAR-100, in their binary and in their Python version."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.datasets.dataset import Images, Labels
from orchestrator.datasets.unpickling import unpickled
from orchestrator.errors import UserError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
BROKEN = (
    *(pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RecursionError),
)  # what reading a file can raise that is no such pickle, or one made to do harm


@dataclass(frozen=True)
class BinaryFiles:
    """Records of one byte per kind of label, then 3,072 bytes of pixels: red, green, blue. `label` says which byte."""

    files: dict[str, tuple[str, ...]]
    kinds: int = 1
    label: int = 0

    def read(self, folder: Path, split: str) -> tuple[Images, Labels]:
        return _joined(self._records(folder / file) for file in self.files[split])

    def count(self, folder: Path, split: str) -> int:
        return sum(self._rows(folder / file) for file in self.files[split])

    def _rows(self, path: Path) -> int:
        rows, rest = divmod(path.stat().st_size, self.kinds + PIXELS)
        if rest or not rows:
            raise UserError(
                f"dataset.root: {path} is not a whole file of {self.kinds + PIXELS:,} bytes per image: it has "
                f"{path.stat().st_size:,} bytes"
            )
        return rows

    def _records(self, path: Path) -> tuple[Images, Labels]:
        rows = self._rows(path)
        records = np.fromfile(path, np.uint8).reshape(rows, self.kinds + PIXELS)
        return records[:, self.kinds :].reshape(rows, *SHAPE), records[:, self.label].astype(np.int64)


@dataclass(frozen=True)
class PickledFiles:
    """One pickled dict per file: `data`, uint8 [N, 3072], and a list of labels. Nothing in them is run."""

    files: dict[str, tuple[str, ...]]
    key: str

    def read(self, folder: Path, split: str) -> tuple[Images, Labels]:
        return _joined(self._batch(folder / file) for file in self.files[split])

    def count(self, folder: Path, split: str) -> int:
        """A pickle has no header: what it holds is read and forgotten."""
        return len(self.read(folder, split)[1])

    def _batch(self, path: Path) -> tuple[Images, Labels]:
        try:
            batch = unpickled(path)
            images = batch["data"].reshape(-1, *SHAPE)
            labels = np.array([int(label) for label in batch[self.key]], np.int64)
        except BROKEN as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"dataset.root: {path} is not a batch of CIFAR's Python version: {said}") from error
        if len(images) != len(labels) or not len(labels):
            raise UserError(f"dataset.root: {path} has {len(images)} images and {len(labels)} labels")
        return images, labels


def _joined(parts: Iterable[tuple[Images, Labels]]) -> tuple[Images, Labels]:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)
