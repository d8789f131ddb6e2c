"""Models that exist already in a sweep: their files are read by the driver, and kept in the run for all workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from defenses.inputs.front import behind
from defenses.networks.registry import build, describe
from defenses.pretrained import Pretrained
from orchestrator.build import make
from orchestrator.errors import UserError
from orchestrator.storage import checkpoints
from orchestrator.weights import put_into, read_file, tensors_in

if TYPE_CHECKING:
    from defenses.inputs.registry import Input
    from orchestrator.cells import Cell
    from orchestrator.plan import Plan
    from orchestrator.space import Configuration
    from orchestrator.splits import Split
    from orchestrator.storage.files import Files

WHERE = "defense.path"
State = dict[str, Any]


def is_pretrained(defense: dict[str, Any]) -> bool:
    return bool(defense["name"] == Pretrained.name)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class Kept:
    """The files of a sweep's pretrained models, each put into the run once."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._digests: dict[str, str] = {}

    def taken(self, configuration: Configuration) -> Configuration:
        """The same with the content of the file said, which is in the run from then on, and without settings of
        training, of which only the transforms in front concern it. Raises UserError."""
        block = configuration.defense
        if not is_pretrained(block):
            return configuration
        if block["path"] not in self._digests:
            self._digests[block["path"]] = self._keep(block)
        params = {path: value for path, value in configuration.params.items() if _concerns(path)}
        return replace(configuration, defense={**block, "digest": self._digests[block["path"]]}, params=params)

    def _keep(self, block: dict[str, Any]) -> str:
        known = block["digest"]
        if known and checkpoints.is_sound(self.files, _name(known)):
            return str(known)
        content = read_file(block["path"], WHERE)
        digest = _checked(block, content)
        if not checkpoints.is_sound(self.files, _name(digest)):
            tensors = tensors_in(content, block["path"], WHERE)
            checkpoints.save(self.files, _key(digest), 0, tensors, {"file": block["path"]})
        return digest


def loaded(plan: Plan, data: Split, files: Files) -> State:
    """The state of a pretrained trial's model. Raises UserError where the weights do not fit the network."""
    tensors, _ = checkpoints.load(files, _name(plan.defense["digest"]))
    return _state(plan.network, data, tensors, plan.defense["path"], plan.make_training().inputs)


def problems(cell: Cell, data: Split) -> Iterator[str]:
    """What is wrong with the files of a cell's pretrained models, each with each of the networks that are tried."""
    seen: list[Any] = []
    for configuration in cell.space.tried():
        key = configuration.network, configuration.defense
        if is_pretrained(configuration.defense) and key not in seen:
            seen.append(key)
            try:
                content = read_file(configuration.defense["path"], WHERE)
                _checked(configuration.defense, content)
                tensors = tensors_in(content, configuration.defense["path"], WHERE)
                _state(configuration.network, data, tensors, configuration.defense["path"])
            except UserError as error:
                yield str(error)


def names_of(cells: Sequence[Cell]) -> list[str]:
    """The cells that may have a pretrained model."""
    return [cell.name for cell in cells if any(is_pretrained(tried.defense) for tried in cell.space.tried())]


def _concerns(path: str) -> bool:
    """Whether a setting is one that a pretrained model has."""
    return not path.startswith("training.") or f"{path}.".startswith("training.input.")


def _state(network: dict[str, Any], data: Split, tensors: State, path: str, inputs: tuple[Input, ...] = ()) -> State:
    from defenses import NETWORKS

    description = describe(make(NETWORKS, network), data.images.shape[1], data.images.shape[2], data.classes, inputs)
    model = build(description)
    found = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    put_into(behind(model)[1], found, path, WHERE)
    weights = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    return {"epoch": 0, "network": description, **weights}


def _checked(block: dict[str, Any], content: bytes) -> str:
    digest = digest_of(content)
    if block["digest"] not in (None, digest):
        raise UserError(f"defense.digest: {block['path']} must have the content {block['digest']}, got {digest}")
    return digest


def _key(digest: str) -> str:
    return f"pretrained-{digest}"


def _name(digest: str) -> str:
    return checkpoints.name_of(_key(digest), 0)
