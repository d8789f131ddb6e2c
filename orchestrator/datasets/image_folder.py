"""A folder of images in a folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from orchestrator.datasets.dataset import Images, Labels, Rows, Take
from orchestrator.datasets.decoding import decode, each
from orchestrator.datasets.memory import refuse_beyond_memory
from orchestrator.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """ROOT/train/CLASS/FILE.png and ROOT/test/CLASS/FILE.png, or .jpg and others; classes in order of their names.

    `size` brings the shorter side to `resize` (default: `size`) pixels and cuts a square of `size` from the middle;
    without it all images must have one size. `channels` (1 or 3) converts them, and by default they must all be grey
    or all be coloured. Only the images that `train`, `validation` and `test` ask for are decoded, on up to 16
    threads; they stay in memory, channels x size x size bytes each, twice that while workers are given theirs. Where
    that is more than there is, it is refused before the first is read.
    """

    size: int | None = None
    resize: int | None = None
    channels: int | None = None

    name: ClassVar[str] = "image_folder"
    default_root: ClassVar[str | None] = None
    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "test"}
    source: ClassVar[str] = "put one folder per class there, or name in `root` the folder that has them"

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels: must be 1 or 3, got {self.channels!r}")
        if self.size is not None and not 1 <= self.size <= 4096:
            raise ValueError(f"size: must be a whole number in 1..4096, got {self.size!r}")
        if self.resize is not None and not (self.size is not None and self.size <= self.resize <= 4096):
            raise ValueError(f"resize: must be a whole number in `size`..4096, beside `size`, got {self.resize!r}")

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        take, labels = self.opened(root, split)
        return take(np.arange(len(labels))), labels

    def opened(self, root: Path | None, split: str) -> tuple[Take, Labels]:
        """How to decode rows of a split, and its labels, for which no image is read."""
        paths, labels = self._listed(root, split)

        def take(rows: Rows) -> Images:
            return self._decoded([paths[row] for row in rows])

        return take, labels

    def count(self, root: Path | None, split: str) -> int:
        """The number of files."""
        return len(self._listed(root, split)[0])

    def _listed(self, root: Path | None, split: str) -> tuple[list[Path], Labels]:
        """The files of a split, by class and name, and their labels: the place of the class among those of `train`."""
        if root is None:
            raise UserError(f"dataset.root: {self.name} needs the folder that holds {self.folders['train']}/CLASS")
        names = self._classes(root / self.folders["train"])
        folder = root / self.folders[split]
        if unknown := sorted(set(self._classes(folder)) - set(names)):
            raise UserError(f"dataset.root: {folder / unknown[0]}: there is no class of this name in training")
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            found = self._files(folder / name)
            paths += found
            labels += [label] * len(found)
        return paths, np.array(labels, np.int64)

    def _classes(self, folder: Path) -> list[str]:
        if not folder.is_dir():
            raise UserError(f"dataset.root: there is no folder {folder}; {self.source}")
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
        if not names:
            raise UserError(f"dataset.root: {folder} has no folders, one for each class; {self.source}")
        return names

    def _files(self, folder: Path) -> list[Path]:
        if not folder.is_dir():  # a class that the test split lacks
            return []
        names = [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file()]
        images = [folder / name for name in sorted(names) if name.lower().endswith(ENDINGS)]
        if not images:
            raise UserError(f"dataset.root: {folder} has no image; these are files that end in {', '.join(ENDINGS)}")
        return images

    def _decoded(self, paths: Sequence[Path]) -> Images:
        """[N, C, H, W]; the first image says the shape of all."""
        first = self._pixels(paths[0])
        refuse_beyond_memory(len(paths), first.shape)
        images = np.empty((len(paths), *first.shape), np.uint8)

        def place(row: int) -> None:
            pixels = self._pixels(paths[row])
            if pixels.shape != first.shape:
                raise UserError(self._differing(paths[row], pixels.shape, paths[0], first.shape))
            images[row] = pixels

        each(place, range(len(paths)))
        return images

    def _pixels(self, path: Path) -> Images:
        return decode(path, self.channels, f"dataset.root: {path}", self.size, self.resize)

    def _differing(self, path: Path, shape: tuple[int, ...], first: Path, wanted: tuple[int, ...]) -> str:
        (channels, height, width), (some, high, wide) = shape, wanted
        if channels != some:
            seen = f"got {channels} channels after {some} in {first}; `channels: 1` or `channels: 3` converts them"
        else:
            seen = f"got {height}x{width} after {high}x{wide} in {first}; `size: 64`, for one, cuts all to 64x64"
        return f"dataset.root: {path}: images must have one size, {seen}"
