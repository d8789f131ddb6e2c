"""Where stochastic layers get their randomness: a source given from outside, keyed by example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from attacks.draws import Draws

NamedLayer = tuple[str, Any]  # the layer's name in the model, and the layer


def stochastic_layers(model: nn.Module) -> list[NamedLayer]:
    """The modules that have an attribute `draws: Draws | None`, in the model's order."""
    return [(name, layer) for name, layer in model.named_modules() if _draws(layer)]


def is_stochastic(model: nn.Module) -> bool:
    """Whether two passes over the same images may differ by the model's own draws."""
    return bool(stochastic_layers(model))


@contextmanager
def drawing(model: nn.Module, draws: Draws) -> Iterator[None]:
    """Within the block every stochastic layer draws from a fork of `draws` of its own, named by its place.

    `draws.example_ids` are those of the rows the model is called on. The same `draws` gives the same noise; a
    second look at the model needs a fork. What the layers held before is put back at the end.
    """
    with lending(stochastic_layers(model), draws):
        yield


@contextmanager
def lending(layers: Sequence[NamedLayer], draws: Draws) -> Iterator[None]:
    """`drawing` for layers already looked up: for those who call the same model many times."""
    held = [layer.draws for _, layer in layers]
    try:
        for name, layer in layers:
            layer.draws = draws.fork("layer", name)
        yield
    finally:
        for (_, layer), before in zip(layers, held, strict=True):
            layer.draws = before


def _draws(layer: nn.Module) -> bool:
    missing = object()
    draws = getattr(layer, "draws", missing)
    return draws is None or isinstance(draws, Draws)
