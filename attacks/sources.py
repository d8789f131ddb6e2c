"""The source of randomness of stochastic layers: given from outside, keyed by example like everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from attacks.draws import Draws


def stochastic_layers(model: nn.Module) -> list[nn.Module]:
    """The modules that take a source: those with an attribute `draws`, a Draws or None."""
    return [module for module in model.modules() if hasattr(module, "draws")]


def is_stochastic(model: nn.Module) -> bool:
    return bool(stochastic_layers(model))


@contextmanager
def drawing(model: nn.Module, draws: Draws) -> Iterator[None]:
    """Give every stochastic layer of `model` a source of its own inside the block, and what it had after it."""
    layers = stochastic_layers(model)
    before = [layer.draws for layer in layers]
    for place, layer in enumerate(layers):
        layer.draws = draws.fork("layer", place)  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer, source in zip(layers, before, strict=True):
            layer.draws = source
