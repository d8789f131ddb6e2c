"""Checkpoints: what is saved comes back bit for bit, and what is not whole is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator import checkpoints, durable

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


def save(directory: Path, epoch: int, **state: Any) -> Path:
    return checkpoints.save(directory, "trial", epoch, state or {"x": torch.full((4,), float(epoch))}, {"epoch": epoch})


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path, "trial", 3, STATE, {"rung": {"robust": 0.25}, "host": None})
    state, facts = checkpoints.load(path)
    assert state.keys() == STATE.keys()
    assert all(same(value, state[name]) for name, value in STATE.items())
    assert facts == {"rung": {"robust": 0.25}, "host": None}


def test_a_checkpoint_lies_where_name_of_says(tmp_path: Path) -> None:
    path = save(tmp_path, 12)
    assert path == tmp_path / checkpoints.name_of("trial", 12)
    assert checkpoints.name_of("trial", 12) == "trial/00012.safetensors"
    assert {file.name for file in path.parent.iterdir()} == {"00012.safetensors", "00012.json"}


def test_tensors_that_share_memory_come_back_as_they_were(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    shared = {
        "whole": whole,
        "again": whole,
        "row": whole[1],
        "turned": whole.T,
        "parameter": torch.nn.Parameter(whole),
    }
    state, _ = checkpoints.load(save(tmp_path, 1, **shared))
    assert all(same(value.detach(), state[name]) for name, value in shared.items())
    assert not state["parameter"].requires_grad


def test_a_slice_of_a_large_tensor_is_stored_alone(tmp_path: Path) -> None:
    path = save(tmp_path, 1, part=torch.zeros(100_000)[:10])
    assert path.stat().st_size < 1000


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ((1, 2), r"state\['v'\]: .*tuple"),
        ({1: 2}, r"state\['v'\]: .*dict"),
        ([{"a": {3}}], r"state\['v'\]\[0\]\['a'\]: .*set"),
        (STATE["model.count"].numpy(), "ndarray"),
    ],
)
def test_what_json_would_change_is_refused_with_its_place(tmp_path: Path, value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        save(tmp_path, 1, v=value)
    assert checkpoints.newest(tmp_path, "trial") is None


def test_newest_is_the_last_epoch_of_this_trial(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path, "trial") is None
    for epoch in (2, 10, 9):
        save(tmp_path, epoch)
    checkpoints.save(tmp_path, "trial2", 11, {}, {})
    assert checkpoints.newest(tmp_path, "trial") == 10


def cut_tensors(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def cut_json(path: Path) -> None:
    path.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes()[:-1])


def empty_json(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"")


def foreign_json(path: Path) -> None:
    path.with_suffix(".json").write_text("[1]")


def no_json(path: Path) -> None:
    path.with_suffix(".json").unlink()


def no_tensors(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut_tensors, flip_a_bit, cut_json, empty_json, foreign_json, no_json, no_tensors])
def test_a_damaged_pair_is_as_good_as_absent(tmp_path: Path, damage: Any) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    damage(path)
    assert checkpoints.newest(tmp_path, "trial") == 1
    with pytest.raises(checkpoints.CheckpointError, match=r"00002\.safetensors"):
        checkpoints.load(path)


@pytest.mark.parametrize("survived", [0, 1])
def test_a_writer_killed_between_any_two_files_leaves_no_half_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    written, replace = [], durable.replace

    def dying(path: Path, content: bytes) -> None:
        if len(written) == survived:
            raise KeyboardInterrupt
        written.append(path)
        replace(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, x=torch.zeros(4))
    assert checkpoints.newest(tmp_path, "trial") == (2 if survived == 0 else 1)
    save(tmp_path, 2, x=torch.ones(4))
    assert checkpoints.newest(tmp_path, "trial") == 2
    assert checkpoints.load(tmp_path / checkpoints.name_of("trial", 2))[0]["x"].tolist() == [1.0] * 4


def test_prune_keeps_what_it_is_told_and_sweeps_up_after_killed_writers(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 4):
        save(tmp_path, epoch)
    checkpoints.save(tmp_path, "other", 1, {}, {})
    (tmp_path / "trial" / ".00005.safetensors.77-ab.tmp").write_bytes(b"half")
    (tmp_path / "trial" / "00005.safetensors").write_bytes(b"without its commit")
    checkpoints.prune(tmp_path, "trial", {2, 4, 9})
    names = {path.name for path in (tmp_path / "trial").iterdir()}
    assert names == {"00002.json", "00002.safetensors", "00004.json", "00004.safetensors"}
    assert checkpoints.newest(tmp_path, "other") == 1
    checkpoints.prune(tmp_path, "nobody", set())


def test_a_trial_id_that_leaves_the_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key: must be"):
        checkpoints.save(tmp_path, "../trial", 1, {}, {})


def test_the_commit_is_plain_json_and_nothing_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, 1, x=torch.zeros(2), note="a")
    commit = json.loads(path.with_suffix(".json").read_text())
    assert (commit["version"], commit["trial_id"], commit["epoch"], commit["values"]) == (1, "trial", 1, {"note": "a"})
    header = path.read_bytes()[8:]
    assert header.startswith(b'{"x":{"dtype":"F32"')
