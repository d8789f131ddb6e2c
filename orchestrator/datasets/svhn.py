"""SVHN, digits on house numbers, from its two MATLAB files.

torchvision and scipy are imported where files are fetched and read: the workers of a sweep do neither.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from orchestrator.datasets.dataset import Images, Labels
from orchestrator.errors import UserError

FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
BROKEN = (ValueError, TypeError, KeyError, NotImplementedError, OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Svhn:
    """99,289 coloured 32x32 images of the digits 0 to 9 (Netzer et al. 2011): 73,257 for training, 26,032 for the test.

    Read from ROOT/train_32x32.mat and ROOT/test_32x32.mat, where the label 10 is the digit 0; the 531,131 extra
    images are not used. `download` fetches the files when they are not there.
    """

    download: bool = False

    name: ClassVar[str] = "svhn"
    default_root: ClassVar[str | None] = "~/data/svhn"
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 10)
    sizes: ClassVar[dict[str, int]] = {"train": 73_257, "test": 26_032}

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        path = self._path(root, split)
        try:
            content = loadmat(path, variable_names=["X", "y"])
            images, labels = content["X"], content["y"].astype(np.int64).reshape(-1)
        except (*BROKEN, MatReadError) as error:
            raise UserError(_told(path, error)) from error
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
            raise UserError(f"dataset.root: {path}: X must be uint8 [32, 32, 3, N], got {images.dtype} {images.shape}")
        if len(labels) != images.shape[3] or labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
            raise UserError(f"dataset.root: {path}: y must have a label in 1..10 for each of {images.shape[3]} images")
        labels[labels == 10] = 0
        return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels  # [H, W, C, N] -> [N, C, H, W]

    def count(self, root: Path | None, split: str) -> int:
        """From the shape that stands before the pixels."""
        from scipy.io import whosmat
        from scipy.io.matlab import MatReadError

        path = self._path(root, split)
        try:
            return int({name: shape for name, shape, _ in whosmat(path)}["X"][3])
        except (*BROKEN, IndexError, MatReadError) as error:
            raise UserError(_told(path, error)) from error

    def _path(self, root: Path | None, split: str) -> Path:
        """The file of a split, which is there."""
        if root is None:
            raise UserError(f"dataset.root: {self.name} needs the folder that holds {' and '.join(FILES.values())}")
        path = root / FILES[split]
        if not path.is_file():
            if not self.download:
                raise UserError(
                    f"dataset.root: {path} is not there. Put {' and '.join(FILES.values())} there, or say `download: "
                    "true` in the dataset block, or name in `root` the folder that has them"
                )
            self._fetch(root, split)
        return path

    def _fetch(self, root: Path, split: str) -> None:
        from torchvision.datasets import SVHN
        from torchvision.datasets.utils import download_url

        url, file, md5 = SVHN.split_list[split]
        try:
            download_url(url, str(root), file, md5)
        except (OSError, RuntimeError) as error:
            raise UserError(f"dataset.download: could not fetch {self.name} into {root}: {error}") from error


def _told(path: Path, error: Exception) -> str:
    said = f"no variable {error}" if isinstance(error, KeyError) else str(error)
    return f"dataset.root: {path} is not a whole MATLAB file of SVHN: {said}"
