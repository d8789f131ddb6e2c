"""Networks by name: a description in JSON values that rebuilds the module a state belongs to.

The table is filled by the package's `__init__`, so that a method which only rebuilds what it is given
depends on no architecture.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from defenses.inputs.front import Front, Fronted
from defenses.inputs.registry import Input, described, rebuilt
from defenses.seeding import seeded

Description = dict[str, Any]
NETWORKS: dict[str, type[Network]] = {}


class Network(Protocol):
    """A frozen dataclass whose fields are the architecture; called, it gives a new module.

    The module takes float images [B, channels, size, size] in [0, 1] and gives logits [B, classes].
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module: ...


def describe(network: Network, channels: int, size: int, classes: int, inputs: tuple[Input, ...] = ()) -> Description:
    """JSON values from which `build` makes the same architecture again, behind the same transforms."""
    settings = {key: _json(value) for key, value in dataclasses.asdict(network).items()}
    shape = {"channels": channels, "size": size, "classes": classes}
    front = {"input": _json(described(inputs))} if inputs else {}
    return {"name": network.name, "settings": settings, **shape, **front}


def build(description: Description, seed: int = 0) -> nn.Module:
    """A new module on the CPU, initialised from `seed` alone; the global generator is left as found.

    Its weights lie in memory with channels last, in which convolutions are faster.

    Raises ValueError when no network of that name is known.
    """
    name = description["name"]
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"network: must be one of {', '.join(sorted(NETWORKS))}, got {name!r}{hint}")
    network = NETWORKS[name](**description["settings"])
    with seeded(seed, torch.device("cpu")):
        model = network(description["channels"], description["size"], description["classes"])
    model = model.to(memory_format=torch.channels_last)
    inputs = rebuilt(description.get("input", []))
    return Fronted(Front(inputs, description["channels"], description["size"]), model) if inputs else model


def _json(value: Any) -> Any:
    """Tuples become lists, so that a description equals itself after a trip through JSON."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, (list, tuple)) else value
