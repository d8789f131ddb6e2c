"""Transforms in front of a network, by name: descriptions in JSON values that rebuild them.

The table is filled by the package's `__init__`, so that what only rebuilds a network depends on no transform.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

from torch import nn

from attacks.surface import Surface

INPUTS: dict[str, type[Input]] = {}


class Input(Protocol):
    """A frozen dataclass whose fields are the transform's settings; called, it gives a new module without parameters.

    The module takes float images [B, channels, size, size] in [0, 1] and gives such images; row i of the answer depends
    on row i alone. A stochastic one draws per example, as `Stochastic` does; one that is costly may remember its
    answers by the ids it is lent (`draws.example_ids`), but for clean images only: it is handed attacked ones too.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, channels: int, size: int) -> nn.Module: ...

    def surface(self) -> Surface:
        """Of it, `draws` and `backward` count: here a stand-in for the transform, images -> images."""
        ...


def described(inputs: tuple[Input, ...]) -> list[dict[str, Any]]:
    """JSON values from which `rebuilt` makes the same transforms."""
    return [{"name": each.name, "settings": dataclasses.asdict(each)} for each in inputs]


def rebuilt(descriptions: list[dict[str, Any]]) -> tuple[Input, ...]:
    """Raises ValueError for a name that is not known."""
    for each in descriptions:
        if each["name"] not in INPUTS:
            raise ValueError(f"input: must be one of {', '.join(sorted(INPUTS))}, got {each['name']!r}")
    return tuple(INPUTS[each["name"]](**each["settings"]) for each in descriptions)
