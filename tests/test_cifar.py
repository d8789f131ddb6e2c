"""CIFAR-10, CIFAR-100 and SVHN: the publishers' formats, and pickles that want to do more than hold data."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import pickled, pixels, records, write_cifar10, write_cifar100, write_cifar_parquet, write_svhn
from test_datasets import REAL, png

from orchestrator.datasets import Cifar10, Cifar100, Svhn
from orchestrator.datasets.unpickling import unpickled
from orchestrator.errors import UserError


@pytest.mark.parametrize("version", ["bin", "py"])
def test_cifar10_is_what_was_written_whatever_the_version(version: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path, version)
    images, labels = Cifar10()(tmp_path, "train")
    assert np.array_equal(images, np.concatenate([pixels(10, seed) for seed in range(5)]))
    assert labels.tolist() == [(row + seed) % 10 for seed in range(5) for row in range(10)]
    assert np.array_equal(Cifar10()(tmp_path, "test")[0], pixels(10, 5))


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_tells_fine_labels_or_coarse_ones(version: str, tmp_path: Path) -> None:
    write_cifar100(tmp_path, version)
    images, labels = Cifar100()(tmp_path, "train")
    assert np.array_equal(images, pixels(120, 0))
    assert labels.tolist() == [row % 100 for row in range(120)]
    assert Cifar100(labels="coarse")(tmp_path, "test")[1].tolist() == [row % 100 // 5 for row in range(120)]


def test_the_binary_version_is_read_where_there_are_both(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    write_cifar10(tmp_path, "py")
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(b"broken")
    assert len(Cifar10()(tmp_path, "test")[0]) == 10
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").unlink()
    with pytest.raises(UserError, match="test_batch is not a batch of CIFAR's Python version"):
        Cifar10()(tmp_path, "test")


def test_only_the_files_of_the_split_are_opened(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(b"broken")
    assert len(Cifar10()(tmp_path, "train")[0]) == 50
    with pytest.raises(UserError, match=r"test_batch\.bin is not a whole file of 3,073 bytes per image: it has 6 "):
        Cifar10().count(tmp_path, "test")


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (Cifar10(), ["label"]),
        (Cifar100(), ["coarse_label", "fine_label"]),
        (Cifar100(labels="coarse"), ["fine_label", "coarse_label"]),
    ],
)
def test_cifar_may_lie_there_as_parquet(dataset: Cifar10, labels: list[str], tmp_path: Path) -> None:
    write_cifar_parquet(tmp_path, dataset.name, labels, png)
    images, found = dataset(tmp_path, "test")
    assert np.array_equal(images, pixels(20, 1))
    assert found.tolist() == [row % 10 for row in range(20)]
    assert dataset.count(tmp_path, "test") == 20


def test_cifar_says_what_to_put_where(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()  # with nothing in it
    message = (
        r"has none of cifar-10-batches-bin, cifar-10-batches-py, cifar10 with the whole train split\. Unpack https://"
        r"www\.cs\.toronto\.edu/~kriz/cifar-10-binary\.tar\.gz there, or say `download: true` .* name in `root`"
    )
    with pytest.raises(UserError, match=message):
        Cifar10()(tmp_path, "train")


@pytest.mark.parametrize("content", [records(pixels(2, 0), [1, 2])[:-1], b"", b"\x1f\x8b" * 100])
def test_a_binary_file_that_is_cut_short_is_named(content: bytes, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/data_batch_3.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_3\.bin is not a whole file of 3,073 bytes per image: it has \d"):
        Cifar10()(tmp_path, "train")


def test_labels_of_other_data_are_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(records(pixels(2, 0), [1, 77]))
    with pytest.raises(UserError, match=r"cifar-10-batches-bin: labels must be in 0\.\.9, got 1\.\.77"):
        Cifar10()(tmp_path, "test")


def test_cifar_downloads_the_binary_version_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def fetch(url: str, root: str, *, filename: str, md5: str) -> None:
        asked.append((url, filename, md5))
        if len(asked) > 1:
            raise RuntimeError("no network")
        write_cifar10(Path(root))

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fetch)
    assert len(Cifar10(download=True)(tmp_path, "train")[0]) == 50
    assert len(Cifar10(download=True)(tmp_path, "test")[0]) == 10
    name, md5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"  # the sum on the publisher's page
    assert asked == [(f"https://www.cs.toronto.edu/~kriz/{name}", name, md5)]
    with pytest.raises(UserError, match=r"dataset\.download: could not fetch cifar100 into .*no network"):
        Cifar100(download=True)(tmp_path, "train")


class Evil:
    """Unpickled by `pickle` itself, it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(protocol: int, tmp_path: Path) -> None:
    write_cifar10(tmp_path, "py")
    evil = pickle.dumps({"data": Evil(tmp_path / "harm"), "labels": [0]}, protocol)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(evil)
    with pytest.raises(UserError, match=r"test_batch is not a batch .* it names (posix|os|nt)\.mkdir, which no "):
        Cifar10()(tmp_path, "test")
    assert not (tmp_path / "harm").exists()
    pickle.loads(evil)
    assert (tmp_path / "harm").exists()  # it would have


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
KIND = b"cnumpy\ndtype\nU\x02%sK\x00K\x01\x87R"
HARM: dict[str, tuple[bytes, str]] = {
    "a builtin": (b"cbuiltins\neval\nU\x011\x85R", "names __builtin__.eval|names builtins.eval"),
    "a part of numpy that runs code": (b"cnumpy.testing._private.utils\nrunstring\n0", "names numpy.testing"),
    "numpy's own loader": (b"cnumpy\nload\nU\x01x\x85R", "names numpy.load"),
    "a dotted way out": (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93", r"names numpy\.ndarray\.__class__"),
    "an array of objects": (b"%s(K\x01K\x01\x85%s\x89](K\x01etb" % (ARRAY, KIND % b"O8"), "an array of O8, not of u1"),
    "an array of words": (b"%s(K\x01K\x01\x85%s\x89U\x08%stb" % (ARRAY, KIND % b"f8", bytes(8)), "of f8, not of u1"),
    "too few bytes": (b"%s(K\x01K\x09\x85%s\x89U\x01ztb" % (ARRAY, KIND % b"u1"), "reshape"),
    "a negative side": (b"%s(K\x01J\xff\xff\xff\xff\x85%s\x89U\x01ztb" % (ARRAY, KIND % b"u1"), r"of shape \(-1,\)"),
    "no state": (ARRAY, "array without content"),
    "a function kept": (b"cnumpy\nndarray\n", "named without content"),
    "attributes set on what makes arrays": (b"cnumpy.core.multiarray\n_reconstruct\n}U\x01aK\x01sb", "sets attributes"),
    "attributes set on a name": (b"cnumpy\ndtype\nN}U\x04nameU\x06encodes\x86b", "sets attributes"),
    "another encoding": (b"c_codecs\nencode\nU\x01xU\x05utf-8\x86R", "calls encode in a way"),
    "something outside": (b"U\x01xQ", "refers to something outside"),
    "an extension code": (b"\x82\x01", "unregistered extension code"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_a_pickle_of_anything_but_plain_values_and_bytes_is_refused(name: str, tmp_path: Path) -> None:
    value, message = HARM[name]
    (tmp_path / "batch").write_bytes(b"\x80\x02}(U\x04data" + value + b"u.")
    with pytest.raises((pickle.UnpicklingError, ValueError), match=message):
        unpickled(tmp_path / "batch")


@pytest.mark.filterwarnings("ignore")  # numpy has something to say of pickles this old
def test_the_old_pickle_says_to_pickle_itself_what_it_says_to_us(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickled(pixels(3, 0), labels=[4, 5, 6]))
    ours, theirs = unpickled(tmp_path / "batch"), pickle.loads((tmp_path / "batch").read_bytes(), encoding="latin1")
    assert np.array_equal(ours.pop("data"), theirs.pop("data"))
    assert ours == theirs
    assert set(ours) == {"batch_label", "labels", "filenames"}


def test_a_pickle_written_today_is_read_too(tmp_path: Path) -> None:
    """numpy has since renamed what makes arrays, and Python writes bytes as encoded text up to protocol 2."""
    for protocol in (2, 3, 4):
        batch = {"data": pixels(3, 0).reshape(3, -1), "labels": [4, 5, 6], "name": "b", "order": np.asfortranarray(EYE)}
        (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol))
        found = unpickled(tmp_path / "batch")
        assert found["labels"] == [4, 5, 6]
        assert np.array_equal(found["data"], batch["data"])
        assert np.array_equal(found["order"], EYE)


EYE = np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Ran out of input"),
        (b"<html>", "is not a batch of CIFAR's Python version"),
        (pickled(pixels(2, 0), labels=[1, 2])[:-9], "is not a batch of CIFAR's Python version"),
        (pickled(pixels(2, 0), labels=[1]), "has 2 images and 1 labels"),
        (pickled(pixels(2, 0), fine_labels=[1, 2]), "no 'labels'"),
        (pickle.dumps({"data": [1, 2], "labels": [1]}), "'list' object has no attribute"),
        (pickle.dumps([1]), "list indices must be"),
        (b"\x80\x02]q\x00h\x00a.", "recursion"),
    ],
)
def test_a_batch_that_is_none_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path, "py")
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(UserError, match=rf"cifar-10-batches-py/test_batch .*{message}"):
        Cifar10()(tmp_path, "test")


def test_svhn_is_what_was_written_and_ten_is_the_digit_0(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    images, labels = Svhn()(tmp_path, "test")
    assert np.array_equal(images, pixels(20, 1))
    assert labels.tolist() == [row % 10 for row in range(20)]


def test_svhn_says_what_is_missing_or_broken(tmp_path: Path) -> None:
    from scipy.io import savemat

    with pytest.raises(UserError, match=r"train_32x32\.mat is not there\. Put .*`download: true`.*`root`"):
        Svhn()(tmp_path, "train")
    write_svhn(tmp_path)
    whole = (tmp_path / "test_32x32.mat").read_bytes()
    for content in (b"", b"<html>" * 99, whole[: len(whole) // 2]):
        (tmp_path / "test_32x32.mat").write_bytes(content)
        with pytest.raises(UserError, match=r"test_32x32\.mat is not a whole MATLAB file of SVHN"):
            Svhn()(tmp_path, "test")
        if len(content) < 1000:
            with pytest.raises(UserError, match=r"test_32x32\.mat is not a whole MATLAB file of SVHN"):
                Svhn().count(tmp_path, "test")
    for content, message in (
        ({"y": [[1]]}, "no variable 'X'"),
        ({"X": np.zeros((32, 32, 3, 1)), "y": [[1]]}, r"X must be uint8 \[32, 32, 3, N\], got float64"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1]]}, r"a label in 1\.\.10 for each of 2 images"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1, 0]]}, r"a label in 1\.\.10 for each of 2 images"),
    ):
        savemat(tmp_path / "test_32x32.mat", content)
        with pytest.raises(UserError, match=message):
            Svhn()(tmp_path, "test")


def test_svhn_downloads_only_the_split_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(url: str, root: str, file: str, md5: str) -> None:
        asked.append(file)
        if len(asked) > 1:
            raise OSError("no network")
        write_svhn(Path(root))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    assert len(Svhn(download=True)(tmp_path, "train")[0]) == 20
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"dataset\.download: could not fetch svhn into .*no network"):
        Svhn(download=True)(tmp_path, "test")
    assert asked == ["train_32x32.mat", "test_32x32.mat"]


@pytest.mark.skipif(not (REAL / "cifar10").is_dir(), reason="no cifar10 in ROBUSTSWEEP_DATA (default ~/data)")
def test_the_real_cifar10_is_found_by_its_name() -> None:
    images, labels = Cifar10()(REAL, "test")
    assert images.shape == (10000, 3, 32, 32)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert Cifar10().count(REAL, "train") == 50000
