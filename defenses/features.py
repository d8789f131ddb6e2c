"""The hidden features of any network: what passes chosen places of it while it computes its logits."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.queries import querying
from defenses.inputs.front import behind


@dataclass(frozen=True)
class Place:
    """What leaves the module of this name, or what enters it."""

    module: str
    enters: bool = False


def stages(model: nn.Module) -> list[Place]:
    """The hidden stages of a network, in its own order: what enters each of its layers after the first.

    A layer is a child that holds a matrix or a kernel (not batch norm); a network that is one child in a wrapper is
    unwrapped. The last stage is thus what the classifier sees: 500 units of lenet, the pooled channels of a resnet.
    Of a network that is one layer, which hides nothing, the logits; of one without a layer, nothing.
    """
    layers = _layers(model, "")
    return [Place(name, enters=True) for name in layers[1:]] or [Place(name) for name in layers]


def chosen(model: nn.Module, layers: Sequence[str], count: int) -> list[Place]:
    """The layers of these names, or where none are named the last `count` stages. Raises ValueError for neither."""
    if layers:
        return named(model, layers)
    if found := stages(model):
        return found[-count:]
    raise ValueError("layers: must name modules, since this network has no layers that can be told apart; got []")


def named(model: nn.Module, layers: Sequence[str]) -> list[Place]:
    """What leaves the modules of these names. Raises ValueError for a name the network does not have."""
    prefix, network = behind(model)
    known = [name for name, _ in network.named_modules() if name]
    for layer in layers:
        if layer not in known:
            near = difflib.get_close_matches(layer, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"layers: must be modules of the network: {', '.join(known)}; got {layer!r}{hint}")
    return [Place(prefix + layer) for layer in layers]


@contextmanager
def reading(model: nn.Module, places: Sequence[Place]) -> Iterator[dict[Place, Tensor]]:
    """Within the block, a call of the model puts the features at the `places` into the dict, with their graph.

    A module called twice leaves what passed last. The hooks are gone after the block: the model is as it was.
    """
    modules, found = dict(model.named_modules()), dict[Place, Tensor]()
    handles = [
        modules[place.module].register_forward_pre_hook(_before(found, place))
        if place.enters
        else modules[place.module].register_forward_hook(_after(found, place))
        for place in places
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def vectors(features: Tensor) -> Tensor:
    """One vector per example, float32: maps are averaged over their pixels. [B, C, ...] -> [B, C]"""
    flat = features.float()
    return flat if flat.dim() == 2 else flat.flatten(2).mean(2)


def widths(model: nn.Module, places: Sequence[Place], x: Tensor) -> list[int]:
    """How long the vectors at each place are; `x` [1, C, H, W] is an image to find out with.

    Raises ValueError where no tensor with one row per image passes a place.
    """
    with querying(model) as queries, reading(model, places) as found:
        queries.logits(x, Draws(0, torch.arange(len(x), device=x.device)))
    for place in places:
        features: Any = found.get(place)
        if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != len(x):
            seen = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"layers: must give features [B, ...], {place.module} gave {seen} for {len(x)} image")
    return [vectors(found[place]).shape[1] for place in places]


def _layers(module: nn.Module, prefix: str) -> list[str]:
    found = [(prefix + name, child) for name, child in module.named_children() if _has_matrix(child)]
    if len(found) == 1 and list(found[0][1].children()):
        return _layers(found[0][1], found[0][0] + ".")
    return [name for name, _ in found]


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _before(found: dict[Place, Tensor], place: Place) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, given: Any) -> None:
        found[place] = given[0]

    return hook


def _after(found: dict[Place, Tensor], place: Place) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, given: Any, returned: Any) -> None:
        found[place] = returned

    return hook
