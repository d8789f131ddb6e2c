"""Datasets: what each promises, and what it says when its data is missing or broken."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import write_cifar10, write_cifar100, write_imagenet, write_images, write_svhn
from PIL import Image
from sklearn.datasets import load_digits

import orchestrator.contracts.dataset as contract
from orchestrator.build import make
from orchestrator.contracts.dataset import CLAIMS
from orchestrator.contracts.settings import can_be_written_in_a_spec, is_a_frozen_dataclass_under_its_own_name
from orchestrator.datasets import DATASETS, Digits, FashionMnist, Mnist, Parquet, Synthetic
from orchestrator.errors import UserError

REAL = Path(os.environ.get("ROBUSTSWEEP_DATA", "~/data")).expanduser()  # MNIST/raw, cifar10/*.parquet, if any


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """[H, W] or [H, W, 3] -> encoded"""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_parquet(path: Path, images: list[Any], labels: list[Any], *, is_struct: bool = True) -> None:
    encoded = [{"bytes": image, "path": None} for image in images] if is_struct else images
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if is_struct else pa.binary()
    pq.write_table(pa.table({"img": pa.array(encoded, kind), "label": labels}), path)


def colours(count: int, seed: int = 0) -> np.ndarray:
    """[N, 4, 4, 3]"""
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def write_colours(root: Path) -> None:
    for file, seed in (("train-0.parquet", 0), ("train-1.parquet", 1), ("test-0.parquet", 2)):
        write_parquet(root / file, [png(image) for image in colours(20, seed)], [row % 4 for row in range(20)])


def write_idx(root: Path, folder: str = "MNIST") -> None:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = bytes(row % 10 for row in range(count))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)


def nothing(root: Path) -> None:
    pass


CASES: dict[str, Callable[[Path], None]] = {
    "digits": nothing,
    "synthetic": nothing,
    "mnist": write_idx,
    "fashion_mnist": lambda root: write_idx(root, "FashionMNIST"),
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "imagenet": write_imagenet,
    "image_folder": write_images,
    "parquet": write_colours,
}


def test_every_dataset_of_the_table_has_a_case_here() -> None:
    assert set(CASES) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
class TestEvery:
    def test_is_a_frozen_dataclass_with_defaults_whose_fields_are_no_common_keys(self, name: str) -> None:
        is_a_frozen_dataclass_under_its_own_name(DATASETS[name](), name)
        can_be_written_in_a_spec(DATASETS[name](), DATASETS)
        contract.its_fields_are_no_common_keys(DATASETS[name]())
        assert make(DATASETS, name) == DATASETS[name]()

    def test_gives_whole_splits_that_never_change(self, name: str, tmp_path: Path) -> None:
        CASES[name](tmp_path)
        for claim in CLAIMS:
            claim.check(DATASETS[name](), root=tmp_path)


def test_digits_are_scaled_and_a_quarter_of_each_class_is_the_test() -> None:
    (train, train_labels), (test, test_labels) = Digits()(None, "train"), Digits()(None, "test")
    whole = load_digits()
    assert (len(train), len(test)) == (1352, 445)
    assert np.array_equal(np.bincount(test_labels), np.bincount(whole.target) // 4)
    assert np.array_equal(np.bincount(test_labels) + np.bincount(train_labels), np.bincount(whole.target))
    zeros = whole.images[whole.target == 0]  # rows 0, 1, 2 are for training, row 3 is for the test
    assert np.array_equal(train[train_labels == 0][2, 0], np.rint(zeros[2] * 255 / 16))
    assert np.array_equal(test[test_labels == 0][0, 0], np.rint(zeros[3] * 255 / 16))
    assert train.max() == 255


@pytest.mark.parametrize(("dataset", "folder"), [(Mnist(), "MNIST"), (FashionMnist(), "FashionMNIST")])
def test_mnist_reads_what_is_in_the_files(dataset: Mnist, folder: str, tmp_path: Path) -> None:
    write_idx(tmp_path, folder)
    images, labels = dataset(tmp_path, "test")
    assert images.shape == (20, 1, 28, 28)
    assert np.array_equal(images[:, 0], np.random.default_rng(20).integers(0, 256, (20, 28, 28), dtype=np.uint8))
    assert labels.tolist() == [row % 10 for row in range(20)]


def test_mnist_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte is not there.*/MNIST/raw.*`download: true`"):
        Mnist()(tmp_path, "train")
    with pytest.raises(UserError, match=r"four unzipped FashionMNIST files into .*/FashionMNIST/raw, or"):
        FashionMnist()(tmp_path, "train")


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03\0\0", b"<html>not found</html>", b"\x1f\x8b\x08\0" * 9])
def test_mnist_names_a_broken_file(tmp_path: Path, content: bytes) -> None:
    write_idx(tmp_path)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match="train-images-idx3-ubyte is not a whole, unzipped IDX file"):
        Mnist()(tmp_path, "train")


class Mirror:
    """In place of torchvision's class, whose `download` needs a network."""

    folder: ClassVar[str] = "MNIST"
    fetched: ClassVar[list[str]] = []

    def __init__(self, root: str, download: bool) -> None:
        assert download
        if self.fetched:
            raise RuntimeError("no network")
        self.fetched.append(root)
        write_idx(Path(root), self.folder)


def test_mnist_downloads_only_when_told_and_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.MNIST", Mirror)
    with pytest.raises(UserError, match="download: true"):
        Mnist()(tmp_path, "train")
    assert len(Mnist(download=True)(tmp_path, "train")[0]) == 40
    assert len(Mnist(download=True)(tmp_path, "test")[0]) == 20
    with pytest.raises(UserError, match=r"dataset\.download: could not fetch mnist into .*no network"):
        Mnist(download=True)(tmp_path / "elsewhere", "train")


def test_fashion_mnist_is_fetched_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "torchvision.datasets.FashionMNIST", type("Mirror", (Mirror,), {"folder": "FashionMNIST", "fetched": []})
    )
    assert len(FashionMnist(download=True)(tmp_path, "train")[0]) == 40


def test_parquet_gives_pixels_and_labels_in_order_of_file_and_row(tmp_path: Path) -> None:
    write_colours(tmp_path)
    images, labels = Parquet()(tmp_path, "train")
    assert np.array_equal(images, np.concatenate([colours(20, 0), colours(20, 1)]).transpose(0, 3, 1, 2))
    assert labels.tolist() == [row % 4 for row in range(20)] * 2


def test_parquet_of_plain_binary_under_other_names_is_the_same(tmp_path: Path) -> None:
    write_colours(tmp_path)
    images = [png(image) for image in colours(20, 0)]
    labels = pa.array([row % 4 for row in range(20)], pa.uint8())
    pq.write_table(pa.table({"digit": labels, "more": labels, "picture": images}), tmp_path / "a.parquet")
    ours = Parquet(train_files="a.*", image="picture", label="digit")(tmp_path, "train")
    theirs = Parquet(train_files="train-0*")(tmp_path, "train")
    assert np.array_equal(ours[0], theirs[0])
    assert np.array_equal(ours[1], theirs[1])


def test_parquet_spans_batches_and_row_groups(tmp_path: Path) -> None:
    values = np.arange(2500) % 256
    images = [png(np.full((1, 1), value, np.uint8)) for value in values]
    table = pa.table({"img": images, "label": np.arange(2500)})
    pq.write_table(table, tmp_path / "train-0.parquet", row_group_size=700)
    pixels, labels = Parquet()(tmp_path, "train")
    assert np.array_equal(pixels[:, 0, 0, 0], values)
    assert np.array_equal(labels, np.arange(2500))


@pytest.mark.parametrize(("channels", "shape"), [(1, (2, 1, 4, 4)), (3, (2, 3, 4, 4))])
def test_parquet_converts_grey_and_coloured_images_when_told(
    tmp_path: Path, channels: int, shape: tuple[int, ...]
) -> None:
    write_parquet(tmp_path / "train-0.parquet", [png(colours(1)[0]), png(colours(1)[0, :, :, 0])], [0, 1])
    images, _ = Parquet(channels=channels)(tmp_path, "train")
    assert images.shape == shape
    assert np.array_equal(images[1, -1], colours(1)[0, :, :, 0])


GREY = np.zeros((4, 4), np.uint8)
BROKEN: dict[str, tuple[list[Any], list[Any], str]] = {
    "size": ([png(GREY), png(GREY[:3])], [0, 1], r"train-0\.parquet, row 1: images must have one size, got 3x4 .* 4x4"),
    "channels": ([png(GREY), png(colours(1)[0])], [0, 1], "4x4 with 3 channels after 4x4 with 1 channel; `ch"),
    "depth": ([png(GREY.astype(np.uint16))], [0], "row 0: only images of 8 bits per channel"),
    "bytes": ([png(GREY), b"GIF89a?"], [0, 1], r"row 1: not an image Pillow knows, got b'GIF89a\?'$"),
    "cut short": ([png(colours(400).reshape(80, 80, 3))[:-900]], [0], "not an image Pillow can read"),
    "null image": ([None], [0], "row 0: no image"),
    "null label": ([png(GREY), png(GREY)], [0, None], r"column 'label' must hold whole numbers from 0, got 1 nulls"),
    "words": ([png(GREY)], ["cat"], r"dataset\.label: .*must hold whole numbers from 0, got string"),
    "fractions": ([png(GREY)], [0.5], "must hold whole numbers from 0, got double"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_parquet_names_the_row_that_is_broken(tmp_path: Path, kind: str) -> None:
    images, labels, message = BROKEN[kind]
    write_parquet(tmp_path / "train-0.parquet", images, labels)
    with pytest.raises(UserError, match=message):
        Parquet()(tmp_path, "train")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Parquet(image="picture"), r"dataset\.image: .*train-0\.parquet has no column 'picture'; it has img, label"),
        (Parquet(label="class"), r"dataset\.label: .*has no column 'class'"),
        (Parquet(image="label"), r"column 'label' must hold encoded images \(binary\), got int64"),
        (Parquet(train_files="tr*.pq"), r"dataset\.train_files: no file .* matches 'tr\*\.pq'; there: broken, test-0"),
        (Parquet(test_files="*-0.parquet"), r"train-0\.parquet would be in the training and the test split"),
        (Parquet(train_files="broken"), r"broken is not a whole Parquet file"),
    ],
)
def test_parquet_says_which_setting_is_wrong(tmp_path: Path, dataset: Parquet, message: str) -> None:
    write_colours(tmp_path)
    (tmp_path / "broken").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=message):
        dataset(tmp_path, "train")


def test_datasets_that_need_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root: parquet needs the folder"):
        Parquet()(None, "train")
    with pytest.raises(UserError, match=r"dataset\.root: there is no folder .*absent"):
        Parquet()(tmp_path / "absent", "train")
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "imagenet", "image_folder"):
        with pytest.raises(UserError, match=rf"dataset\.root: {name} needs the folder that holds "):
            DATASETS[name]()(None, "train")


def test_synthetic_follows_its_settings() -> None:
    dataset = Synthetic(classes=3, channels=2, size=5, examples=120)
    (train, labels), (test, _) = dataset(None, "train"), dataset(None, "test")
    assert train.shape == (120, 2, 5, 5)
    assert test.shape == (30, 2, 5, 5)
    assert np.bincount(labels).tolist() == [40, 40, 40]
    assert not np.array_equal(train, dataclasses.replace(dataset, seed=1)(None, "train")[0])


def test_synthetic_splits_share_class_means_and_noise_makes_them_harder() -> None:
    def accuracy(noise: float) -> float:
        """of the nearest training mean, on the test split"""
        (x, y), (x_test, y_test) = (Synthetic(noise=noise)(None, split) for split in ("train", "test"))
        means = np.stack([x[y == label].mean(0) for label in range(10)])
        distances = ((x_test[:, None] - means[None]) ** 2).sum((2, 3, 4))  # [N, K]
        return float((distances.argmin(1) == y_test).mean())

    assert accuracy(0.1) == 1.0
    assert 0.15 < accuracy(1.5) < 0.9


@pytest.mark.parametrize(
    "block",
    [
        {"name": "synthetic", "classes": 1},
        {"name": "synthetic", "noise": -0.1},
        {"name": "synthetic", "seed": -1},
        {"name": "synthetic", "size": 10**6},
        {"name": "parquet", "channels": 2},
        {"name": "parquet", "train_files": "/etc/*"},
        {"name": "parquet", "test_files": ""},
        {"name": "parquet", "test_files": "../*.parquet"},
        {"name": "digits", "download": True},
        {"name": "cifar100", "labels": "medium"},
        {"name": "image_folder", "channels": 2},
        {"name": "image_folder", "size": 0},
        {"name": "image_folder", "resize": 64},
        {"name": "imagenet", "resize": 200},
    ],
)
def test_settings_that_make_no_sense_are_refused(block: dict[str, Any]) -> None:
    field = "examples" if block.get("size", 0) > 4096 else list(block)[1]  # the product is told at one of its factors
    with pytest.raises(UserError, match=field):
        make(DATASETS, block)


@pytest.mark.skipif(not (REAL / "MNIST/raw").is_dir(), reason="no MNIST in ROBUSTSWEEP_DATA (default ~/data)")
def test_mnist_has_the_published_counts() -> None:
    """Counts per class: yann.lecun.com/exdb/mnist."""
    labels = {split: Mnist()(REAL, split)[1] for split in ("train", "test")}
    assert np.bincount(labels["train"]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels["test"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="no cifar10 in ROBUSTSWEEP_DATA (default ~/data)")
def test_cifar10_has_the_published_counts_and_mean() -> None:
    """1,000 test images per class; the mean is that of the well-known training constants, to two places."""
    images, labels = Parquet()(REAL / "cifar10", "test")
    assert images.shape == (10000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert images.mean((0, 2, 3)) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)
