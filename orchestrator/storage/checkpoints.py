"""Checkpoints of trials: tensors in safetensors, everything else in JSON beside them, never pickle.

The JSON is written last and names the digest of the tensors: it is the commit. A pair of which half is missing,
cut short or of another save is no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from orchestrator.storage.files import Files
from orchestrator.storage.parts import checked_key

State: TypeAlias = dict[str, Any]  # Tensor or JSON value, by dotted name
DIRECTORY = "checkpoints"
SUFFIX, COMMIT = ".safetensors", ".json"
VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, half written or damaged."""


def name_of(trial_id: str, epoch: int) -> str:
    """Where a checkpoint lies below the directory of checkpoints, e.g. `1f3a/00012.safetensors`."""
    return f"{checked_key(trial_id)}/{epoch:05d}{SUFFIX}"


def save(files: Files, trial_id: str, epoch: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Write a checkpoint, in the place of one of the same epoch, and give its name, as `name_of` does.

    `facts` are JSON values that are handed back by `load`. Raises TypeError for what is neither tensor nor JSON.
    """
    name = name_of(trial_id, epoch)
    tensors = _unshared({name: value for name, value in state.items() if isinstance(value, Tensor)})
    content = safetensors.torch.save(tensors)
    commit = {
        "version": VERSION, "trial_id": trial_id, "epoch": epoch, "tensors_digest": _digest(content),
        "values": {name: _json(value, f"state[{name!r}]") for name, value in state.items() if name not in tensors},
        "facts": _json(dict(facts), "facts"),
    }  # fmt: skip
    files.make_directory(_directory(trial_id))
    files.replace(_below(name), content)
    files.replace(_below(_commit_of(name)), json.dumps(commit).encode())
    return name


def load(files: Files, name: str) -> tuple[State, dict[str, Any]]:
    """The state, its tensors on the CPU, and the facts of the checkpoint of this name. Raises CheckpointError."""
    content, commit = _read(files, name)
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{files}: {_below(name)}: no tensors in safetensors: {error}") from error
    return {**tensors, **commit["values"]}, commit["facts"]


def newest(files: Files, trial_id: str) -> int | None:
    """The last epoch of which there is a sound checkpoint; None where there is none."""
    stems = {name.removesuffix(COMMIT) for name in files.names(_directory(trial_id)) if name.endswith(COMMIT)}
    epochs = sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)
    return next((epoch for epoch in epochs if is_sound(files, name_of(trial_id, epoch))), None)


def is_sound(files: Files, name: str) -> bool:
    """Whether the checkpoint of this name is there and whole."""
    try:
        _read(files, name)
    except CheckpointError:
        return False
    return True


def prune(files: Files, trial_id: str, keep: set[int]) -> None:
    """Delete a trial's checkpoints but those of the epochs in `keep`, and what killed writers left behind.

    For the one process that trains this trial: another one that is writing there would lose its file.
    """
    kept = {f"{epoch:05d}{suffix}" for epoch in keep for suffix in (SUFFIX, COMMIT)}
    for name in files.names(_directory(trial_id)):
        if name not in kept:
            files.delete(f"{_directory(trial_id)}/{name}")


def forget(files: Files, trial_id: str, epoch: int) -> None:
    """Delete one checkpoint, if it is there."""
    name = _below(name_of(trial_id, epoch))
    files.delete(_commit_of(name))
    files.delete(name)


def _directory(trial_id: str) -> str:
    return f"{DIRECTORY}/{checked_key(trial_id)}"


def _below(name: str) -> str:
    return f"{DIRECTORY}/{name}"


def _commit_of(name: str) -> str:
    return name.removesuffix(SUFFIX) + COMMIT


def _read(files: Files, name: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the tensors and the commit, which belong together."""
    where = f"{files}: {_below(name)}"
    try:
        commit = json.loads(files.read(_below(_commit_of(name))))
        content = files.read(_below(name))
        if commit["tensors_digest"] != _digest(content):
            raise CheckpointError(f"{where}: the tensors are not those that its {COMMIT} was written for")
        return content, {"values": dict(commit["values"]), "facts": dict(commit["facts"])}
    except CheckpointError:
        raise
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: no whole checkpoint: {error}") from error


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Detached, contiguous, on the CPU, each with memory of its own, as safetensors wants them."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        whole = plain.untyped_storage()
        if whole.data_ptr() in seen or whole.nbytes() != plain.numel() * plain.element_size():
            plain = plain.clone(memory_format=torch.contiguous_format)
        seen.add(plain.untyped_storage().data_ptr())
        found[name] = plain
    return found


def _json(value: Any, where: str) -> Any:
    """The value itself, if JSON gives it back as it is. Raises TypeError with the place of what it would change."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_json(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _json(item, f"{where}[{key!r}]") for key, item in value.items()}
    seen = f"{type(value).__name__}: {value!r:.80}"
    raise TypeError(f"{where}: must be a tensor or a JSON value (dicts with text keys), got {seen}")
