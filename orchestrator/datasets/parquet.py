"""Encoded images and labels in Parquet files, the layout most datasets on the Hugging Face hub have."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.datasets.dataset import Images, Labels
from orchestrator.datasets.decoding import decode
from orchestrator.errors import UserError

BATCH = 1024


@dataclass(frozen=True)
class Parquet:
    """Every row of the files in ROOT that match a pattern, in order of file name and row.

    `image` is a column of encoded images (PNG, JPEG, ...: binary, or a struct with a `bytes` field), `label`
    one of integers from 0. All images must have one size; `channels` (1 or 3) converts them, and by default
    they must all be grey or all be coloured.
    """

    train_files: str = "train-*.parquet"
    test_files: str = "test-*.parquet"
    image: str = "img"
    label: str = "label"
    channels: int | None = None

    name: ClassVar[str] = "parquet"
    default_root: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels: must be 1 or 3, got {self.channels!r}")
        for field in ("train_files", "test_files"):
            pattern = getattr(self, field)
            if not pattern.strip() or not pattern.isprintable() or Path(pattern).is_absolute() or ".." in pattern:
                raise ValueError(f"{field}: must be a pattern of file names below root, got {pattern!r}")

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        files = [_open(path) for path in self._paths(root, split)]
        count = sum(file.metadata.num_rows for _, file in files)
        images, labels, row = np.empty((0, 0, 0, 0), np.uint8), np.empty(count, np.int64), 0
        for encoded, batch_labels, where in self._batches(files):
            labels[row : row + len(encoded)] = batch_labels
            for data in encoded:
                pixels = self._decode(data, f"{where}, row {row}")
                if row == 0:
                    images = np.empty((count, *pixels.shape), np.uint8)
                if pixels.shape != images.shape[1:]:
                    raise UserError(_differing(f"{where}, row {row}", pixels.shape, images.shape[1:]))
                images[row] = pixels
                row += 1
        return images, labels

    def count(self, root: Path | None, split: str) -> int:
        """From the footers of the files."""
        return sum(file.metadata.num_rows for _, file in map(_open, self._paths(root, split)))

    def _paths(self, root: Path | None, split: str) -> list[Path]:
        """The files of a split. Looks at names only; a file in both splits is refused."""
        if root is None:
            raise UserError("dataset.root: parquet needs the folder that holds the files (`root: FOLDER`)")
        if not root.is_dir():
            raise UserError(f"dataset.root: there is no folder {root}; put the Parquet files there or name theirs")
        train, test = (_files(root, pattern) for pattern in (self.train_files, self.test_files))
        if both := set(train) & set(test):
            raise UserError(f"dataset.test_files: {min(both)} would be in the training and the test split")
        if paths := train if split == "train" else test:
            return paths
        there = ", ".join(sorted(path.name for path in root.iterdir())[:10]) or "nothing"
        pattern = self.train_files if split == "train" else self.test_files
        raise UserError(f"dataset.{split}_files: no file in {root} matches {pattern!r}; there: {there}")

    def _batches(self, files: Sequence[tuple[Path, pq.ParquetFile]]) -> Iterator[tuple[list[Any], Labels, str]]:
        for path, file in files:
            column = self._image_column(file.schema_arrow, path)
            for batch in file.iter_batches(BATCH, columns=[column, self.label]):
                images = batch.column(self.image)
                encoded = images.field("bytes") if pa.types.is_struct(images.type) else images
                yield encoded.to_pylist(), _integers(batch.column(self.label), path, self.label), path.name

    def _image_column(self, schema: pa.Schema, path: Path) -> str:
        """The path of the column of encoded images; both columns are known to be there afterwards."""
        for field, name in (("image", self.image), ("label", self.label)):
            if name not in schema.names:
                raise UserError(f"dataset.{field}: {path} has no column {name!r}; it has {', '.join(schema.names)}")
        kind = schema.field(self.image).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return self.image
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return f"{self.image}.bytes"
        raise UserError(f"dataset.image: {path}: column {self.image!r} must hold encoded images (binary), got {kind}")

    def _decode(self, data: bytes | None, where: str) -> Images:
        """-> [C, H, W]"""
        if data is None:
            raise UserError(f"dataset.image: {where}: no image (null)")
        return decode(io.BytesIO(data), self.channels, f"dataset.image: {where}")


def _files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_file())


def _open(path: Path) -> tuple[Path, pq.ParquetFile]:
    try:
        return path, pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"dataset.root: {path} is not a whole Parquet file: {error}") from error


def _integers(column: pa.Array, path: Path, name: str) -> Labels:
    if not pa.types.is_integer(column.type) or column.null_count:
        seen = f"{column.null_count} nulls" if column.null_count else str(column.type)
        raise UserError(f"dataset.label: {path}: column {name!r} must hold whole numbers from 0, got {seen}")
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)


def _differing(where: str, shape: tuple[int, ...], first: tuple[int, ...]) -> str:
    def told(shape: tuple[int, ...]) -> str:
        return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"

    hint = "; `channels: 1` or `channels: 3` converts them" if shape[1:] == first[1:] else ""
    return f"dataset.image: {where}: images must have one size, got {told(shape)} after {told(first)}{hint}"
