"""Checkpoints: what is saved comes back bit for bit, and what is not whole is not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_server
import torch
from torch import Tensor

from orchestrator.storage import checkpoints
from orchestrator.storage.files import Files, open_files

STATE = {
    "model.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "model.half": torch.tensor([1.5, float("nan"), -0.0], dtype=torch.bfloat16),
    "model.count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "nothing": torch.empty(0, 3),
    "double": torch.tensor(1 / 3, dtype=torch.float64),
    "epoch": 3,
    "network": {"name": "mlp", "widths": [4, None, 2.5], "flag": True},
    "best": float("-inf"),
    "third": 1 / 3,
    "none": None,
}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and bool(bits(first).equal(bits(second)))
    return bool(first == second)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.serving() as found:
        yield found


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "disk":
        made = open_files(tmp_path)
    else:
        made = open_files(request.getfixturevalue("server").uri(tmp_path.name))
    made.make_directory("")
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Files:
    return open_files(tmp_path)


def save(files: Files, epoch: int, **state: Any) -> str:
    return checkpoints.save(files, "trial", epoch, state or {"x": torch.full((4,), float(epoch))}, {"epoch": epoch})


def test_a_state_comes_back_bit_for_bit(files: Files) -> None:
    name = checkpoints.save(files, "trial", 3, STATE, {"rung": {"robust": 0.25}, "host": None})
    state, facts = checkpoints.load(files, name)
    assert state.keys() == STATE.keys()
    assert all(same(value, state[name]) for name, value in STATE.items())
    assert facts == {"rung": {"robust": 0.25}, "host": None}


def test_a_checkpoint_lies_where_name_of_says(files: Files) -> None:
    assert save(files, 12) == checkpoints.name_of("trial", 12) == "trial/00012.safetensors"
    assert files.names("checkpoints/trial") == ["00012.json", "00012.safetensors"]


def test_tensors_that_share_memory_come_back_as_they_were(disk: Files) -> None:
    whole = torch.arange(12.0).view(3, 4)
    shared = {
        "whole": whole,
        "again": whole,
        "row": whole[1],
        "turned": whole.T,
        "parameter": torch.nn.Parameter(whole),
    }
    state, _ = checkpoints.load(disk, save(disk, 1, **shared))
    assert all(same(value.detach(), state[name]) for name, value in shared.items())
    assert not state["parameter"].requires_grad


def test_a_slice_of_a_large_tensor_is_stored_alone(disk: Files) -> None:
    assert len(disk.read("checkpoints/" + save(disk, 1, part=torch.zeros(100_000)[:10]))) < 1000


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ((1, 2), r"state\['v'\]: .*tuple"),
        ({1: 2}, r"state\['v'\]: .*dict"),
        ([{"a": {3}}], r"state\['v'\]\[0\]\['a'\]: .*set"),
        (STATE["model.count"].numpy(), "ndarray"),
    ],
)
def test_what_json_would_change_is_refused_with_its_place(disk: Files, value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        save(disk, 1, v=value)
    assert checkpoints.newest(disk, "trial") is None


def test_newest_is_the_last_epoch_of_this_trial(files: Files) -> None:
    assert checkpoints.newest(files, "trial") is None
    for epoch in (2, 10, 9):
        save(files, epoch)
    checkpoints.save(files, "trial2", 11, {}, {})
    assert checkpoints.newest(files, "trial") == 10


Damage = Callable[[Files, str], None]  # given a checkpoint without its suffix


def cut_tensors(files: Files, stem: str) -> None:
    files.replace(f"{stem}.safetensors", files.read(f"{stem}.safetensors")[:-1])


def flip_a_bit(files: Files, stem: str) -> None:
    content = bytearray(files.read(f"{stem}.safetensors"))
    content[-1] ^= 1
    files.replace(f"{stem}.safetensors", bytes(content))


def cut_json(files: Files, stem: str) -> None:
    files.replace(f"{stem}.json", files.read(f"{stem}.json")[:-1])


def empty_json(files: Files, stem: str) -> None:
    files.replace(f"{stem}.json", b"")


def foreign_json(files: Files, stem: str) -> None:
    files.replace(f"{stem}.json", b"[1]")


def odd_values(files: Files, stem: str) -> None:
    commit = json.loads(files.read(f"{stem}.json"))
    files.replace(f"{stem}.json", json.dumps(commit | {"values": 7}).encode())


def no_json(files: Files, stem: str) -> None:
    files.delete(f"{stem}.json")


def no_tensors(files: Files, stem: str) -> None:
    files.delete(f"{stem}.safetensors")


@pytest.mark.parametrize(
    "damage", [cut_tensors, flip_a_bit, cut_json, empty_json, foreign_json, odd_values, no_json, no_tensors]
)
def test_a_damaged_newest_checkpoint_is_as_good_as_absent_and_the_one_before_counts(
    files: Files, damage: Damage
) -> None:
    save(files, 1)
    name = save(files, 2)
    damage(files, "checkpoints/trial/00002")
    assert checkpoints.newest(files, "trial") == 1
    assert checkpoints.load(files, checkpoints.name_of("trial", 1))[0]["x"].tolist() == [1.0] * 4
    with pytest.raises(checkpoints.CheckpointError, match=r"checkpoints/trial/00002\.safetensors"):
        checkpoints.load(files, name)


def test_tensors_that_are_none_are_refused_whatever_their_digest_says(disk: Files) -> None:
    name = save(disk, 1)
    commit = json.loads(disk.read("checkpoints/trial/00001.json"))
    disk.replace("checkpoints/trial/00001.safetensors", b"no tensors")
    digest = checkpoints._digest(b"no tensors")
    disk.replace("checkpoints/trial/00001.json", json.dumps(commit | {"tensors_digest": digest}).encode())
    with pytest.raises(checkpoints.CheckpointError, match="no tensors in safetensors"):
        checkpoints.load(disk, name)


@pytest.mark.parametrize("survived", [0, 1])
def test_a_writer_killed_between_any_two_files_leaves_no_half_checkpoint(
    files: Files, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    save(files, 1)
    save(files, 2)
    written, replace = list[str](), type(files).replace

    def dying(files: Files, name: str, content: bytes) -> None:
        if len(written) == survived:
            raise KeyboardInterrupt
        written.append(name)
        replace(files, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            save(files, 2, x=torch.zeros(4))
    assert checkpoints.newest(files, "trial") == (2 if survived == 0 else 1)
    save(files, 2, x=torch.ones(4))
    assert checkpoints.newest(files, "trial") == 2
    assert checkpoints.load(files, checkpoints.name_of("trial", 2))[0]["x"].tolist() == [1.0] * 4


def test_prune_keeps_what_it_is_told_and_sweeps_up_after_killed_writers(files: Files) -> None:
    for epoch in (1, 2, 3, 4):
        save(files, epoch)
    checkpoints.save(files, "other", 1, {}, {})
    files.replace("checkpoints/trial/.00005.safetensors.77-ab.tmp", b"half")
    files.replace("checkpoints/trial/00005.safetensors", b"without its commit")
    checkpoints.prune(files, "trial", {2, 4, 9})
    kept = ["00002.json", "00002.safetensors", "00004.json", "00004.safetensors"]
    assert files.names("checkpoints/trial") == kept
    assert checkpoints.newest(files, "other") == 1
    checkpoints.prune(files, "nobody", set())


def test_a_trial_id_that_leaves_the_directory_is_refused(disk: Files) -> None:
    with pytest.raises(ValueError, match="key: must be"):
        checkpoints.save(disk, "../trial", 1, {}, {})


def test_the_commit_is_plain_json_and_nothing_is_pickled(files: Files) -> None:
    save(files, 1, x=torch.zeros(2), note="a")
    commit = json.loads(files.read("checkpoints/trial/00001.json"))
    assert (commit["version"], commit["trial_id"], commit["epoch"], commit["values"]) == (1, "trial", 1, {"note": "a"})
    assert files.read("checkpoints/trial/00001.safetensors")[8:].startswith(b'{"x":{"dtype":"F32"')
