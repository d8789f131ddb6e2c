"""Splits: disjoint, balanced in every prefix, the same for the same seed, and the test files stay shut."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from test_datasets import write_colours, write_idx

from orchestrator.datasets import DATASETS, Digits
from orchestrator.errors import SpecError, UserError
from orchestrator.splits import load_test, load_training

BALANCED = {"name": "synthetic", "classes": 5, "size": 2, "examples": 1000}


@dataclass(frozen=True)
class Given:
    """A dataset of labels written in the test; the image of row i is i."""

    counts: str = ""
    test_counts: str = "5 5"

    name: ClassVar[str] = "given"
    default_root: ClassVar[str | None] = None

    def __call__(self, root: Path | None, split: str) -> tuple[np.ndarray, np.ndarray]:
        counts = [int(count) for count in (self.counts if split == "train" else self.test_counts).split()]
        labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
        labels = np.random.default_rng(0).permutation(labels)
        return np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels


@pytest.fixture(autouse=True)
def _given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "given", Given)


@pytest.mark.parametrize("block", [{"name": "digits"}, BALANCED, {"name": "given", "counts": "100 10 3"}])
@pytest.mark.parametrize("seed", [0, 1, -7])
def test_training_and_validation_share_out_the_training_data(block: dict[str, Any], seed: int) -> None:
    train, validation = load_training(block, seed)
    whole = DATASETS[block["name"]](**{key: block[key] for key in block if key != "name"})(None, "train")
    ids = np.concatenate([train.example_ids, validation.example_ids])
    assert sorted(ids) == list(range(len(whole[1])))
    for split in (train, validation):
        assert np.array_equal(split.images, whole[0][split.example_ids])
        assert np.array_equal(split.labels, whole[1][split.example_ids])
        assert split.example_ids.dtype == np.int64
        assert split.classes == whole[1].max() + 1


@pytest.mark.parametrize(
    ("examples", "validation"), [(1000, 200), (999, 199), (30000, 5000)]
)  # a fifth, rounded down, and never more than 5000
def test_validation_is_a_fifth_but_at_most_5000(examples: int, validation: int) -> None:
    train, held_out = load_training({**BALANCED, "size": 1, "examples": examples, "validation": None}, 0)
    assert (len(train.labels), len(held_out.labels)) == (examples - validation, validation)


@pytest.mark.parametrize(("validation", "counts"), [(200, [40] * 5), (202, [40, 40, 40, 41, 41]), (3, [0, 0, 1, 1, 1])])
def test_validation_has_equally_many_of_each_class(validation: int, counts: list[int]) -> None:
    _, held_out = load_training({**BALANCED, "validation": validation}, 3)
    assert sorted(np.bincount(held_out.labels, minlength=5)) == counts


@pytest.mark.parametrize(
    ("validation", "counts"),
    [
        (30, [10, 10, 10]),
        (60, [25, 25, 10]),  # the rare class gives half of what it has, the others share the rest
        (105, [48, 47, 10]),
        (150, [66, 65, 19]),  # more than the halves of all: each class keeps one example at least
    ],
)
def test_a_rare_class_is_not_emptied_by_validation(validation: int, counts: list[int]) -> None:
    train, held_out = load_training({"name": "given", "counts": "100 100 20", "validation": validation}, 0)
    found = np.bincount(held_out.labels)
    assert sorted(found, reverse=True) == counts
    assert np.array_equal(np.bincount(train.labels) + found, [100, 100, 20])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("block", [{"name": "digits"}, BALANCED, {**BALANCED, "classes": 7, "test": 100}])
def test_every_prefix_of_validation_and_test_is_near_balanced(block: dict[str, Any], seed: int) -> None:
    for split in (load_training(block, seed)[1], load_test(block, seed)):
        is_label = split.labels[:, None] == np.arange(split.classes)  # [N, K]
        expected = np.arange(1, len(is_label) + 1)[:, None] * is_label.mean(0)
        assert np.abs(is_label.cumsum(0) - expected).max() <= 1.5


def test_classes_of_equal_size_take_turns_in_one_order() -> None:
    rounds = load_test(BALANCED, 0).labels.reshape(-1, 5)
    assert sorted(rounds[0]) == [0, 1, 2, 3, 4]
    assert (rounds == rounds[0]).all()


def test_the_prefix_of_an_unbalanced_test_split_has_the_proportions_of_the_whole() -> None:
    split = load_test({"name": "given", "counts": "9 9 9", "test_counts": "100 50 10"}, 0)
    assert np.bincount(split.labels).tolist() == [100, 50, 10]
    assert np.bincount(split.labels[:80]) == pytest.approx([50, 25, 5], abs=1)


def test_a_subset_of_the_test_split_is_balanced_and_keeps_its_ids() -> None:
    block = {"name": "given", "counts": "9 9 9", "test_counts": "100 50 10"}
    whole, part = load_test(block, 0), load_test({**block, "test": 60}, 0)
    assert np.bincount(part.labels).tolist() == [25, 25, 10]
    labels = dict(zip(whole.example_ids.tolist(), whole.labels.tolist(), strict=True))
    assert [labels[row] for row in part.example_ids.tolist()] == part.labels.tolist()


def test_a_training_subset_grows_by_adding_and_leaves_validation_alone() -> None:
    block = {**BALANCED, "validation": 100}
    all_of_it, validation = load_training(block, 0)
    cuts = [load_training({**block, "train": size}, 0) for size in (50, 200, 900)]
    ids = [set(train.example_ids.tolist()) for train, _ in cuts]
    assert [len(rows) for rows in ids] == [50, 200, 900]
    assert ids[0] < ids[1] < ids[2] == set(all_of_it.example_ids.tolist())
    assert np.bincount(cuts[0][0].labels).tolist() == [10] * 5
    assert {held_out.fingerprint for _, held_out in cuts} == {validation.fingerprint}


def test_the_seed_decides_the_cut_and_nothing_else_does() -> None:
    first, again, other = (load_training({"name": "digits"}, seed) for seed in (0, 0, 1))
    np.random.seed(5)
    assert [s.fingerprint for s in first] == [s.fingerprint for s in again]
    assert first[0].fingerprint != other[0].fingerprint
    assert first[1].fingerprint != other[1].fingerprint
    assert set(load_test({"name": "digits"}, 0).example_ids) == set(load_test({"name": "digits"}, 1).example_ids)


def test_the_fingerprint_is_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    write_colours(tmp_path)
    here = load_training({"name": "parquet", "root": str(tmp_path)}, 0)
    (tmp_path / "elsewhere").mkdir()
    for part in (0, 1):
        shutil.copy(tmp_path / f"train-{part}.parquet", tmp_path / f"elsewhere/part{part}")
    there = load_training({"name": "parquet", "root": tmp_path / "elsewhere", "train_files": "part?"}, 0)
    assert [s.fingerprint for s in here] == [s.fingerprint for s in there]


@pytest.mark.parametrize("part", ["images", "labels", "order"])
def test_the_fingerprint_sees_one_changed_value(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_training({"name": "digits"}, 0)[0].fingerprint
    images, labels = (array.copy() for array in Digits()(None, "train"))
    if part == "images":
        images[:, 0, 3, 3] ^= 1
    elif part == "labels":
        labels = 9 - labels
    else:
        images, labels = images[::-1], labels[::-1]
    monkeypatch.setattr(Digits, "__call__", lambda self, root, split: (images, labels))
    assert load_training({"name": "digits"}, 0)[0].fingerprint != before


@pytest.mark.parametrize("is_deleted", [True, False])
def test_training_never_opens_the_test_files(tmp_path: Path, is_deleted: bool) -> None:
    write_idx(tmp_path)
    write_colours(tmp_path)
    blocks = [{"name": "mnist", "root": tmp_path}, {"name": "parquet", "root": tmp_path}]
    for path in [*tmp_path.glob("MNIST/raw/t10k*"), tmp_path / "test-0.parquet"]:
        path.unlink() if is_deleted else path.write_bytes(b"poison")
    for block in blocks:
        assert len(load_training(block, 0)[0].labels) == 32
        with pytest.raises(UserError, match=r"t10k-images|test-"):
            load_test(block, 0)


def test_the_root_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_idx(tmp_path / "data")
    assert len(load_training({"name": "mnist"}, 0)[0].labels) == 32
    assert len(load_test({"name": "mnist", "root": "~/data"}, 0).labels) == 20


def test_the_number_of_classes_is_that_of_the_training_data() -> None:
    block = {"name": "given", "counts": "5 5 5", "test_counts": "5 5"}
    assert load_test(block, 0).classes == load_test(block, 0, classes=3).classes == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": "9 0 9"}, r"fill 0\.\.2, but 1 of these classes have no training example, the first is 1"),
        ({"counts": "9"}, "needs at least 2 classes, got 1"),
        ({"counts": ""}, "train split: has no example"),
        ({"validation": 0}, r"dataset\.validation: must be a whole number in 1\.\.18, got 0"),
        ({"validation": 19}, r"1\.\.18, got 19"),
        ({"validation": 2.0}, r"got 2\.0"),
        ({"validation": True}, "got True"),
        ({"train": 17}, r"dataset\.train: must be a whole number in 1\.\.16, got 17"),
        ({"train": 1}, r"given, cut to 1 training examples: labels must fill 0\.\.1"),
        ({"counted": "9"}, r"dataset\.counted: unknown key.*counts"),
        ({"name": "digit"}, r"dataset\.name: .*digits"),
    ],
)
def test_a_training_split_that_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_training({"name": "given", "counts": "10 10", **settings}, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_counts": "5 5 5"}, r"test labels must be in 0\.\.1, got 2"),
        ({"test": 11}, r"dataset\.test: must be a whole number in 1\.\.10, got 11"),
        ({"test_counts": ""}, "test split: has no example"),
    ],
)
def test_a_test_split_that_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_test({"name": "given", "counts": "10 10", **settings}, 0)


IMAGES, LABELS = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, "images must be uint8"),
        (IMAGES[:, 0], LABELS, r"images must be uint8 \[N, C, H, W\], got uint8 \[4, 2, 2\]"),
        (IMAGES, LABELS[:3], r"labels must be int64 \[4\], got int64 \[3\]"),
        (IMAGES, LABELS.astype(np.int32), r"labels must be int64 \[4\], got int32"),
        (IMAGES, LABELS - 1, "labels must be whole numbers from 0, got -1 at row 0"),
    ],
)
def test_a_dataset_that_breaks_its_promise_is_named(
    images: np.ndarray, labels: np.ndarray, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Given, "__call__", lambda self, root, split: (images, labels))
    with pytest.raises(UserError, match=f"dataset given, train split: {message}"):
        load_training({"name": "given"}, 0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, r"images must be uint8 \[N, C, H, W\], got float32 \[4, 1, 2, 2\]"),
        (IMAGES, LABELS, "3 images were asked for, got 4"),
        (IMAGES, LABELS.astype(np.int32), r"labels must be int64 \[N\], got int32 \[4\]"),
        (IMAGES, LABELS[:0], "has no example"),
    ],
)
def test_a_dataset_that_is_opened_is_looked_at_too(
    images: np.ndarray, labels: np.ndarray, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Given, "opened", lambda self, root, split: (lambda rows: images, labels), raising=False)
    with pytest.raises(UserError, match=f"dataset given, train split: {message}"):
        load_training({"name": "given", "validation": 1}, 0)


def test_mistakes_in_the_block_are_mistakes_of_the_spec() -> None:
    with pytest.raises(SpecError):
        load_training({"name": "given", "counted": ""}, 0)
