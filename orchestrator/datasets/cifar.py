"""CIFAR-10 and CIFAR-100, in whichever of three layouts they lie there.

torchvision is imported where files are fetched: it takes seconds, and the workers of a sweep fetch none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from orchestrator.datasets.cifar_files import BinaryFiles, PickledFiles
from orchestrator.datasets.dataset import Images, Labels
from orchestrator.datasets.parquet import Parquet
from orchestrator.errors import UserError

SITE = "https://www.cs.toronto.edu/~kriz/"
Layout = BinaryFiles | PickledFiles | Parquet


@dataclass(frozen=True)
class Cifar10:
    """60,000 coloured 32x32 images of 10 classes (Krizhevsky 2009), from the first of these folders in ROOT.

    cifar-10-batches-bin (the binary version), cifar-10-batches-py (the Python version; nothing in its pickles is run)
    or cifar10 (train-*.parquet and test-*.parquet with the columns img and label). The first two have one order, so
    one set of example ids; that of Parquet files is their own. `download` fetches the binary version when there is
    none of them.
    """

    download: bool = False

    name: ClassVar[str] = "cifar10"
    default_root: ClassVar[str | None] = "~/data"
    sizes: ClassVar[dict[str, int]] = {"train": 50_000, "test": 10_000}
    archive: ClassVar[tuple[str, str]] = ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        folder, files = self._found(root, split)
        images, labels = files(folder, split) if isinstance(files, Parquet) else files.read(folder, split)
        if labels.min() < 0 or labels.max() >= self._classes():
            seen = f"{labels.min()}..{labels.max()}"
            raise UserError(f"dataset.root: {folder}: labels must be in 0..{self._classes() - 1}, got {seen}")
        return images, labels

    def count(self, root: Path | None, split: str) -> int:
        folder, files = self._found(root, split)
        return files.count(folder, split)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, 32, self._classes()

    def _classes(self) -> int:
        return 10

    def _layouts(self) -> dict[str, Layout]:
        """Folder -> its files, the preferred one first."""
        train = tuple(f"data_batch_{number}" for number in range(1, 6))
        binary = BinaryFiles({"train": tuple(f"{file}.bin" for file in train), "test": ("test_batch.bin",)})
        pickled = PickledFiles({"train": train, "test": ("test_batch",)}, "labels")
        return {"cifar-10-batches-bin": binary, "cifar-10-batches-py": pickled, "cifar10": Parquet(channels=3)}

    def _found(self, root: Path | None, split: str) -> tuple[Path, Layout]:
        """The folder to read from and its files, which are there."""
        layouts = self._layouts()
        if root is None:
            raise UserError(f"dataset.root: {self.name} needs the folder that holds {', '.join(layouts)}")
        for folder, files in layouts.items():
            if _is_there(root / folder, files, split):
                return root / folder, files
        if self.download:
            self._fetch(root)
            folder, files = next(iter(layouts.items()))
            if _is_there(root / folder, files, split):
                return root / folder, files
        raise UserError(
            f"dataset.root: {root} has none of {', '.join(layouts)} with the whole {split} split. Unpack "
            f"{SITE}{self.archive[0]} there, or say `download: true` in the dataset block, or name in `root` the "
            "folder that has one of them"
        )

    def _fetch(self, root: Path) -> None:
        from torchvision.datasets.utils import download_and_extract_archive

        archive, md5 = self.archive
        try:
            download_and_extract_archive(SITE + archive, str(root), filename=archive, md5=md5)
        except (OSError, RuntimeError) as error:
            raise UserError(f"dataset.download: could not fetch {self.name} into {root}: {error}") from error


@dataclass(frozen=True)
class Cifar100(Cifar10):
    """60,000 coloured 32x32 images of 100 classes in 20 groups (Krizhevsky 2009); `labels` says which are told.

    From the first of these folders in ROOT: cifar-100-binary, cifar-100-python (nothing in its pickles is run) or
    cifar100 (train-*.parquet and test-*.parquet with the columns img, fine_label, coarse_label). `download` fetches
    the binary version when there is none of them.
    """

    labels: Literal["fine", "coarse"] = "fine"

    name: ClassVar[str] = "cifar100"
    archive: ClassVar[tuple[str, str]] = ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")

    def __post_init__(self) -> None:
        if self.labels not in ("fine", "coarse"):
            raise ValueError(f"labels: must be one of fine, coarse, got {self.labels!r}")

    def _classes(self) -> int:
        return 100 if self.labels == "fine" else 20

    def _layouts(self) -> dict[str, Layout]:
        binary = BinaryFiles(
            {"train": ("train.bin",), "test": ("test.bin",)}, kinds=2, label=0 if self.labels == "coarse" else 1
        )
        pickled = PickledFiles({"train": ("train",), "test": ("test",)}, f"{self.labels}_labels")
        parquet = Parquet(label=f"{self.labels}_label", channels=3)
        return {"cifar-100-binary": binary, "cifar-100-python": pickled, "cifar100": parquet}


def _is_there(folder: Path, files: Layout, split: str) -> bool:
    if isinstance(files, Parquet):
        return folder.is_dir() and any(folder.glob(files.train_files if split == "train" else files.test_files))
    return all((folder / file).is_file() for file in files.files[split])
