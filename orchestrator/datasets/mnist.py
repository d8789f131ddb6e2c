"""MNIST from its four original files, in the folders torchvision uses.

torchvision is imported where files are read: it takes seconds, and the workers of a sweep read none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestrator.datasets.dataset import Images, Labels
from orchestrator.errors import UserError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class Mnist:
    """70,000 grey 28x28 images of 10 digits (LeCun, Cortes, Burges 1998), read from ROOT/MNIST/raw.

    `download` fetches the files when they are not there. Only the two files of the split asked for are
    opened, which `torchvision.datasets.MNIST` itself does not promise.
    """

    download: bool = False

    name: ClassVar[str] = "mnist"
    default_root: ClassVar[str | None] = "~/data"
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 10)
    sizes: ClassVar[dict[str, int]] = {"train": 60_000, "test": 10_000}
    folder: ClassVar[str] = "MNIST"  # and the name of torchvision's class, which fetches the files

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        images_path, labels_path = self._paths(root, split)
        return _read(images_path, read_image_file).numpy()[:, None], _read(labels_path, read_label_file).numpy()

    def count(self, root: Path | None, split: str) -> int:
        """From the size of the file of labels, one byte each after eight."""
        return self._paths(root, split)[1].stat().st_size - 8

    def _paths(self, root: Path | None, split: str) -> list[Path]:
        """The files of a split, which are there."""
        if root is None:
            raise UserError(f"dataset.root: {self.name} needs the folder that holds {self.folder}/raw")
        paths = [root / self.folder / "raw" / file for file in FILES[split]]
        missing = [path for path in paths if not path.is_file()]
        if missing and self.download:
            self._download(root)
        elif missing:
            raise UserError(
                f"dataset.root: {missing[0]} is not there. Put the four unzipped {self.folder} files into "
                f"{paths[0].parent}, or say `download: true` in the dataset block, or name in `root` the folder in "
                f"which {self.folder}/raw lies"
            )
        return paths

    def _download(self, root: Path) -> None:
        from torchvision import datasets

        try:
            getattr(datasets, self.folder)(str(root), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(f"dataset.download: could not fetch {self.name} into {root}: {error}") from error


def _read(path: Path, reader: Any) -> Any:
    try:
        return reader(str(path))
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise UserError(f"dataset.root: {path} is not a whole, unzipped IDX file{_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f": {error}" if str(error) and not isinstance(error, (KeyError, ValueError)) else ""
