"""Folders of images: what is read, in which order, how it is cut, and what is said where something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import write_imagenet, write_images
from PIL import Image

from orchestrator.datasets import ImageFolder, ImageNet, decoding, memory
from orchestrator.datasets.decoding import decode
from orchestrator.datasets.memory import physical, refuse_beyond_memory
from orchestrator.errors import UserError
from orchestrator.splits import count_test, load_test, load_training


def test_classes_and_files_come_in_order_of_their_names(tmp_path: Path) -> None:
    write_images(tmp_path)
    images, labels = ImageFolder()(tmp_path, "test")
    assert images.shape == (12, 3, 9, 9)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    names = [f"{name}/{number}.png" for name in ("Bear", "apple", "cat") for number in range(4)]  # as Python sorts them
    expected = [np.asarray(Image.open(tmp_path / "test" / name)).transpose(2, 0, 1) for name in names]
    assert np.array_equal(images, np.stack(expected))


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder as Theirs

    write_images(tmp_path)
    theirs = Theirs(str(tmp_path / "train"))
    images, labels = ImageFolder()(tmp_path, "train")
    assert labels.tolist() == theirs.targets
    assert np.array_equal(images, np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in theirs]))


@pytest.mark.parametrize(("wide", "high"), [(40, 30), (30, 41), (33, 33), (64, 64), (500, 37), (31, 257), (1, 1)])
@pytest.mark.parametrize(("size", "resize"), [(32, None), (28, 32), (27, 32)])
def test_images_are_cut_as_torchvision_cuts_them(
    wide: int, high: int, size: int, resize: int | None, tmp_path: Path
) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    values = np.random.default_rng(wide).integers(0, 256, (high, wide, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    theirs = Compose([Resize(resize or size), CenterCrop(size)])(Image.open(tmp_path / "a.png"))
    ours = decode(tmp_path / "a.png", 3, "a", size, resize)
    assert np.array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))


def test_imagenet_has_its_folders_and_its_usual_size(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    images, _ = ImageNet()(tmp_path, "test")
    assert images.shape == (12, 3, 224, 224)
    Image.open(tmp_path / "val/cat/2.JPEG").convert("L").save(tmp_path / "val/cat/2.JPEG")  # some are grey
    Image.open(tmp_path / "val/cat/3.JPEG").convert("CMYK").save(tmp_path / "val/cat/3.JPEG")  # one is for print
    assert ImageNet(size=24, resize=28)(tmp_path, "test")[0].shape == (12, 3, 24, 24)
    (tmp_path / "val").rename(tmp_path / "test")
    with pytest.raises(UserError, match=r"there is no folder .*/val; name in `root` the folder of ImageNet"):
        ImageNet()(tmp_path, "test")


def test_only_what_a_spec_asks_for_is_decoded(tmp_path: Path) -> None:
    """All that is not asked for may be broken: it is counted, and not read."""
    write_images(tmp_path)
    block = {"name": "image_folder", "root": str(tmp_path), "train": 3, "validation": 3, "test": 3}
    train, validation = load_training(block, 0)
    test = load_test(block, 0, 3)
    for split, folder in ((train, "train"), (validation, "train"), (test, "test")):
        whole = ImageFolder()(tmp_path, folder)
        assert np.array_equal(split.images, whole[0][split.example_ids])
        assert np.array_equal(split.labels, whole[1][split.example_ids])
    read = {*train.example_ids.tolist(), *validation.example_ids.tolist()}
    names = [f"{name}/{number}.png" for name in ("Bear", "apple", "cat") for number in range(4)]
    for row, name in enumerate(names):
        if row not in read:
            (tmp_path / "train" / name).write_bytes(b"broken")
    again, _ = load_training(block, 0)
    assert again.fingerprint == train.fingerprint
    assert count_test({**block, "test": None}) == 12
    with pytest.raises(UserError, match=r"train/.*/\d\.png: not an image Pillow knows, got b'broken'"):
        load_training({**block, "train": None}, 0)


def test_what_is_no_image_is_passed_over_and_classes_of_the_test_may_be_fewer(tmp_path: Path) -> None:
    write_images(tmp_path)
    for name in (".DS_Store", "notes.txt", ".0.png"):
        (tmp_path / "test/cat" / name).write_bytes(b"x")
    (tmp_path / "test/.cache").mkdir()
    for path in (tmp_path / "test/apple").iterdir():
        path.unlink()
    (tmp_path / "test/apple").rmdir()
    assert ImageFolder()(tmp_path, "test")[1].tolist() == [0] * 4 + [2] * 4


def broken(root: Path, name: str) -> None:
    write_images(root)
    cat = root / "train/cat"
    if name == "cut short":
        (cat / "2.png").write_bytes((cat / "2.png").read_bytes()[:-60])
    elif name == "no image":
        (cat / "2.png").write_bytes(b"<html>not found</html>")
    elif name == "size":
        Image.new("RGB", (8, 9)).save(cat / "2.png")
    elif name == "grey":
        Image.new("L", (9, 9)).save(cat / "2.png")
    elif name == "deep":
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(cat / "2.png")
    elif name == "no files":
        for path in cat.iterdir():
            path.rename(path.with_suffix(".npy"))
    elif name == "other class":
        (root / "test/cat").rename(root / "test/dog")
    elif name == "flat":
        cat.rename(root / "train.old")
        for folder in ("Bear", "apple"):
            (root / "train" / folder).rename(root / folder)
    elif name == "no split":
        (root / "test").rename(root / "testing")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut short", r"train/cat/2\.png: not an image Pillow can read: "),
        ("no image", r"train/cat/2\.png: not an image Pillow knows, got b'<html>not fo'$"),
        ("size", r"train/cat/2\.png: images must have one size, got 9x8 after 9x9 in .*train/Bear/0\.png; `size: 64`"),
        ("grey", r"train/cat/2\.png: .* got 1 channels after 3 in .*Bear/0\.png; `channels: 1` or `channels: 3`"),
        ("deep", r"train/cat/2\.png: only images of 8 bits per channel are read, got mode I;16"),
        ("no files", r"train/cat has no image; these are files that end in \.png, \.jpg"),
        ("other class", r"test/dog: there is no class of this name in training$"),
        ("flat", r"train has no folders, one for each class; put one folder per class there, or name in `root`"),
        ("no split", r"there is no folder .*test; put one folder per class there, or name in `root`"),
    ],
)
def test_what_is_wrong_is_named(name: str, message: str, tmp_path: Path) -> None:
    broken(tmp_path, name)
    with pytest.raises(UserError, match=rf"^dataset\.root: .*{message}"):
        ImageFolder()(tmp_path, "test" if name in ("other class", "no split") else "train")


def test_channels_convert_all_images(tmp_path: Path) -> None:
    broken(tmp_path, "grey")
    assert ImageFolder(channels=1)(tmp_path, "train")[0].shape == (12, 1, 9, 9)
    images, _ = ImageFolder(channels=3, size=6)(tmp_path, "train")
    assert images.shape == (12, 3, 6, 6)
    assert not images[10].any()


def test_more_images_than_memory_holds_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    monkeypatch.setattr(memory, "physical", lambda: 2 * 11 * 3 * 81)  # for 11 of the 12
    for name in ("apple", "cat"):
        (tmp_path / "train" / name / "3.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"^dataset: 12 images of 3x9x9 take 0\.0 MB, twice that .* in `train`, `valid"):
        ImageFolder()(tmp_path, "train")
    with pytest.raises(UserError, match=r"apple/3\.png: not an image"):
        load_training({"name": "image_folder", "root": str(tmp_path), "validation": 3, "train": 8}, 0)


def test_all_of_imagenet_takes_what_its_docstring_says() -> None:
    """224 x 224 x 3 bytes, 1,281,167 times."""
    with pytest.raises(UserError, match=r"1,281,167 images of 3x224x224 take 192\.9 GB.* there are 385\.0 GB of"):
        refuse_beyond_memory(1_281_167, (3, 224, 224), 385_000_000_000)
    refuse_beyond_memory(1_281_167, (3, 224, 224), 386_000_000_000)


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limit").write_text("12345678\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "none", tmp_path / "absent"))
    whole = physical()
    assert whole > 2**28
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "none", tmp_path / "limit"))
    assert physical() == 12345678


class Asked(list[int]):
    """A list that notes which of its parts were asked for."""

    def __init__(self, values: Any) -> None:
        super().__init__(values)
        self.parts: list[Any] = []

    def __getitem__(self, part: Any) -> Any:
        self.parts.append(part)
        return super().__getitem__(part)


def test_a_broken_image_ends_the_reading_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when all others were decoded: what is told is the first in order."""
    monkeypatch.setattr(decoding, "BATCH", 4)
    items, done = Asked(range(100)), []

    def work(item: int) -> None:
        if item in (6, 7):
            raise UserError(str(item))
        done.append(item)

    with pytest.raises(UserError, match=r"^6$"):
        decoding.each(work, items)
    assert items.parts == [slice(0, 4), slice(4, 8)]
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
