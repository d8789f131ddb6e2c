"""The three splits of a dataset: training and validation cut from its training data, and the test split apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.build import make
from orchestrator.datasets import DATASETS, Dataset, Images, Labels
from orchestrator.datasets.dataset import Rows, Take
from orchestrator.errors import UserError

COMMON_KEYS = ("name", "root", "validation", "train", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, C, H, W], labels int64 [N] in 0..classes-1 and where each row stood in the original split.

    `example_ids` (int64 [N], row numbers of the original training or test split) stay the same whatever subset
    is cut. `fingerprint` is the SHA-256 of images, labels and ids: of the content, wherever it was read from.
    """

    images: Images
    labels: Labels
    example_ids: Rows
    classes: int
    fingerprint: str


def load_training(block: Mapping[str, Any], seed: int) -> tuple[Split, Split]:
    """The training and the validation split of a dataset block of a spec; the test files are not opened.

    `validation` (default: the lesser of 5000 and a fifth of the training data) and `train` (default: all the
    rest) are class-balanced by `seed`. Training rows are in original order. Validation rows are interleaved by
    class, so that every prefix is near balanced. The validation split does not depend on `train`.
    """
    dataset, root = _dataset(block)
    take, labels = _load(dataset, root, "train")
    classes = _count_classes(labels, dataset.name)
    rows = _by_class(labels, seed, "train")
    counts = np.array([len(group) for group in rows])

    size = _size(block, "validation", len(labels) - classes) or min(5000, max(1, len(labels) // 5))
    held_out = _shares(_spared(counts, size), size)
    kept = counts - held_out
    size = _size(block, "train", int(kept.sum())) or int(kept.sum())
    ends = held_out + _shares(kept, size)

    validation = _interleave([group[:end] for group, end in zip(rows, held_out, strict=True)])
    train = np.sort(np.concatenate([group[a:b] for group, a, b in zip(rows, held_out, ends, strict=True)]))
    _count_classes(labels[train], f"{dataset.name}, cut to {len(train)} training examples", classes)
    return _split(take, labels, train, classes), _split(take, labels, validation, classes)


def load_test(block: Mapping[str, Any], seed: int, classes: int | None = None) -> Split:
    """The test split of a dataset block, interleaved by class; `test` takes a class-balanced subset by `seed`.

    `classes` is that of the training split; where it is not given the training data is read again to count them.
    """
    dataset, root = _dataset(block)
    take, labels = _load(dataset, root, "test")
    size = _size(block, "test", len(labels)) or len(labels)
    if classes is None:
        classes = _count_classes(_load(dataset, root, "train")[1], dataset.name)
    if labels.max() >= classes:
        raise UserError(f"dataset {dataset.name}: test labels must be in 0..{classes - 1}, got {labels.max()}")
    rows = _by_class(labels, seed, "test")
    shares = _shares(np.array([len(group) for group in rows]), size)
    order = _interleave([group[:end] for group, end in zip(rows, shares, strict=True)])
    return _split(take, labels, order, classes)


def count_test(block: Mapping[str, Any]) -> int | None:
    """How many examples the test split will have; None where the dataset cannot tell. Reads no image and no label.

    Raises UserError where its files are not there, or `test` asks for more.
    """
    dataset, root = _dataset(block)
    count = getattr(dataset, "count", None)
    if count is None:
        return None
    most = int(count(root, "test"))
    return _size(block, "test", most) or most


def _dataset(block: Mapping[str, Any]) -> tuple[Dataset, Path | None]:
    settings = {key: value for key, value in block.items() if key not in COMMON_KEYS}
    dataset: Dataset = make(DATASETS, {"name": block["name"], **settings}, "dataset")
    root = block.get("root") or getattr(dataset, "default_root", None)
    try:
        return dataset, None if root is None else Path(root).expanduser()
    except RuntimeError:
        raise UserError(f"dataset.root: there is no home directory for {root!r}") from None


def _load(dataset: Dataset, root: Path | None, split: str) -> tuple[Take, Labels]:
    """What the dataset gives, images by their rows, with what its author promised looked at."""
    where = f"dataset {dataset.name}, {split} split"
    opened = getattr(dataset, "opened", None)
    try:
        take, labels = _whole(dataset, root, split, where) if opened is None else opened(root, split)
    except MemoryError as error:
        raise UserError(f"{where}: does not fit into memory: {error}") from None
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise UserError(f"{where}: labels must be int64 [N], got {labels.dtype} {list(labels.shape)}")
    if len(labels) == 0:
        raise UserError(f"{where}: has no example")
    if labels.min() < 0:
        raise UserError(f"{where}: labels must be whole numbers from 0, got {labels.min()} at row {labels.argmin()}")
    return lambda rows: _images(take, rows, where), labels


def _whole(dataset: Dataset, root: Path | None, split: str, where: str) -> tuple[Take, Labels]:
    images, labels = dataset(root, split)
    _look_at(images, where)
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise UserError(f"{where}: labels must be int64 [{len(images)}], got {labels.dtype} {list(labels.shape)}")
    return images.__getitem__, labels


def _images(take: Take, rows: Rows, where: str) -> Images:
    try:
        images = take(rows)
    except MemoryError as error:
        raise UserError(f"{where}: does not fit into memory: {error}") from None
    _look_at(images, where)
    if len(images) != len(rows):
        raise UserError(f"{where}: {len(rows)} images were asked for, got {len(images)}")
    return images


def _look_at(images: Images, where: str) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(f"{where}: images must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")


def _count_classes(labels: Labels, name: str, classes: int | None = None) -> int:
    """One more than the greatest label; each class must have an example."""
    seen = np.unique(labels)
    count = classes or int(seen[-1]) + 1
    if count < 2:
        raise UserError(f"dataset {name}: needs at least 2 classes, got {count}")
    if len(seen) < count:
        first = next(label for label in range(count) if label >= len(seen) or seen[label] != label)
        raise UserError(
            f"dataset {name}: labels must fill 0..{count - 1}, but {count - len(seen)} of these classes "
            f"have no training example, the first is {first}"
        )
    return count


def _size(block: Mapping[str, Any], key: str, most: int) -> int | None:
    size = block.get(key)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most):
        raise UserError(f"dataset.{key}: must be a whole number in 1..{most}, got {size!r}")
    return size


def _by_class(labels: Labels, seed: int, split: str) -> list[Rows]:
    """The rows of each class, shuffled; the classes too, since the first ones get what cannot be shared out."""
    digest = hashlib.sha256(f"splits/{split}/{seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return [rng.permutation(np.flatnonzero(labels == label)) for label in rng.permutation(np.unique(labels))]


def _spared(counts: Rows, size: int) -> Rows:
    """How many of each class the validation split may take: half of it if that is enough, never all."""
    half = counts // 2
    return half if half.sum() >= size else counts - 1


def _shares(available: Rows, size: int) -> Rows:
    """How many of each class make `size` together: equally many, where a class has fewer all it has."""
    if available.sum() < size:
        raise UserError(
            f"dataset: {size} examples are asked for beside the training data, {int(available.sum())} can be spared"
        )
    shares = np.zeros_like(available)
    while missing := size - int(shares.sum()):
        able = np.flatnonzero(shares < available)
        more = max(1, missing // len(able))
        able = able[: missing // more]
        shares[able] = np.minimum(shares[able] + more, available[able])
    return shares


def _interleave(rows: list[Rows]) -> Rows:
    """One order of all rows in which every prefix has the classes in near the proportions of the whole."""
    places = np.concatenate([(np.arange(len(group)) + 0.5) / max(1, len(group)) for group in rows])
    return np.concatenate(rows)[np.argsort(places, kind="stable")]


def _split(take: Take, labels: Labels, rows: Rows, classes: int) -> Split:
    parts = take(rows), labels[rows], rows.astype(np.int64)
    content = hashlib.sha256()
    for part in parts:
        content.update(f"{part.dtype.str}{part.shape}".encode())
        content.update(np.ascontiguousarray(part).data)
    return Split(*parts, classes=classes, fingerprint=content.hexdigest())
