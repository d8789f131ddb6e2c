"""Small files in the formats of the datasets, as their publishers write them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

CIFAR10_TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def pixels(count: int, seed: int, size: int = 32) -> np.ndarray:
    """uint8 [N, 3, size, size]"""
    return np.random.default_rng([seed, size]).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def records(images: np.ndarray, *labels: list[int]) -> bytes:
    """The binary version: a byte per kind of label, then red, green and blue, row by row."""
    rows = zip(*labels, images, strict=True)
    return b"".join(bytes(row[:-1]) + row[-1].tobytes() for row in rows)


def pickled(images: np.ndarray, **labels: list[int]) -> bytes:
    """The Python version, operation by operation as Python 2 wrote it: bytes are its text, numpy has its old name."""
    data = images.tobytes()
    parts = [b"\x80\x02}(", _text(b"batch_label"), _text(b"training batch 1 of 5")]
    for key, values in labels.items():
        parts += [_text(key.encode()), b"](", b"".join(b"K" + bytes([value]) for value in values), b"e"]
    parts += [_text(b"data"), b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"]
    parts += [b"(K\x01", struct.pack("<cH", b"M", len(images)), b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"]
    parts += [b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"]
    parts += [b"T", struct.pack("<I", len(data)), data, b"tb", _text(b"filenames"), b"]", b"u."]
    return b"".join(parts)


def _text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def write_cifar10(root: Path, version: str = "bin") -> None:
    folder = root / f"cifar-10-batches-{version}"
    folder.mkdir(parents=True)
    for seed, file in enumerate([*CIFAR10_TRAIN, "test_batch"]):
        images, labels = pixels(10, seed), [(row + seed) % 10 for row in range(10)]
        if version == "bin":
            (folder / f"{file}.bin").write_bytes(records(images, labels))
        else:
            (folder / file).write_bytes(pickled(images, labels=labels))


def write_cifar100(root: Path, version: str = "binary") -> None:
    folder = root / f"cifar-100-{version}"
    folder.mkdir(parents=True)
    for seed, split in enumerate(("train", "test")):
        images, fine = pixels(120, seed), [row % 100 for row in range(120)]
        coarse = [label // 5 for label in fine]
        if version == "binary":
            (folder / f"{split}.bin").write_bytes(records(images, coarse, fine))
        else:
            (folder / split).write_bytes(pickled(images, fine_labels=fine, coarse_labels=coarse))


def write_svhn(root: Path, count: int = 20) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(("train", "test")):
        labels = np.array([[row % 10 or 10] for row in range(count)], np.uint8)  # 10 stands for the digit 0
        content = {"X": pixels(count, seed).transpose(2, 3, 1, 0), "y": labels}
        savemat(root / f"{split}_32x32.mat", content, do_compression=True)


def write_images(root: Path, test: str = "test", ending: str = "png", size: tuple[int, int] = (9, 9)) -> None:
    """Three classes of four coloured images each; `size` is width and height."""
    for seed, split in enumerate(("train", test)):
        for label, name in enumerate(("apple", "Bear", "cat")):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                values = np.random.default_rng([seed, label, number]).integers(0, 256, (*size[::-1], 3), np.uint8)
                Image.fromarray(values).save(root / split / name / f"{number}.{ending}")


def write_imagenet(root: Path) -> None:
    write_images(root, "val", "JPEG", (40, 30))


def write_cifar_parquet(root: Path, name: str, labels: list[str], encode: object) -> None:
    """The layout of the Hugging Face hub; `encode` makes PNG bytes of [H, W, 3]."""
    (root / name).mkdir(parents=True)
    for seed, split in enumerate(("train", "test")):
        images = [{"bytes": encode(image.transpose(1, 2, 0)), "path": None} for image in pixels(20, seed)]  # type: ignore[operator]
        columns = {label: [row % 10 for row in range(20)] for label in labels}
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"img": pa.array(images, kind), **columns})
        pq.write_table(table, root / name / f"{split}-00000-of-00001.parquet")
