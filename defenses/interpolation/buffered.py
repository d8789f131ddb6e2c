"""A network with a block of layers before its last one, whose output is what interpolation goes by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.queries import querying
from defenses.features import Place, reading, stages, vectors
from defenses.seeding import seeded


class Buffered(nn.Module):
    """`network` with the layers of `buffer` before its last layer, here and nowhere else."""

    def __init__(self, network: nn.Module, buffer: nn.Module, place: Place) -> None:
        super().__init__()
        self.network, self.buffer, self.place = network, buffer, place

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the linear head. [B, C, H, W] -> [B, K]"""
        return self.both(x)[0]

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The linear head's logits, and what entered it. -> [B, K], float32 [B, D]"""
        found: list[Tensor] = []
        with self._buffering(found):
            logits: Tensor = self.network(x)
        return logits, vectors(found[-1])

    def features(self, x: Tensor) -> Tensor:
        """float32 [B, D]"""
        return self.both(x)[1]

    def entering(self, x: Tensor) -> Tensor:
        """What comes to the buffer. -> [B, ...]"""
        with reading(self.network, [self.place]) as found:
            self.network(x)
        return found[self.place]

    @contextmanager
    def _buffering(self, found: list[Tensor]) -> Iterator[None]:
        def before(_module: nn.Module, given: Any) -> Any:
            found.append(self.buffer(given[0]))
            return found[-1], *given[1:]

        handle = self.network.get_submodule(self.place.module).register_forward_pre_hook(before)
        try:
            yield
        finally:
            handle.remove()


def buffered(network: nn.Module, channels: int, size: int, depth: int, draws: Draws | None = None) -> Buffered:
    """The network with `depth` linear layers and ReLUs before its last layer, as wide as what enters that.

    Maps get 1x1 convolutions. Initialised from `draws`, where weights are not loaded after. Raises ValueError for a
    network that has no layer.
    """
    found = stages(network)
    if not found:
        raise ValueError("network: must have a layer before which features can be taken, this one has none")
    place = replace(found[-1], enters=True)
    device = next(network.parameters()).device
    image = torch.zeros(1, channels, size, size, device=device)
    with querying(network) as queries, reading(network, [place]) as passed:
        queries.logits(image, Draws(0, torch.arange(1, device=device)))
    entering = passed[place]
    seed = 0 if draws is None else draws.fork("buffer").seed
    with seeded(seed, torch.device("cpu")):
        buffer = nn.Sequential(*[layer for _ in range(depth) for layer in (_linear(entering), nn.ReLU())])
    return Buffered(network, buffer.to(device), place)


def _linear(entering: Tensor) -> nn.Module:
    width = entering.shape[1]
    return nn.Conv2d(width, width, 1) if entering.dim() == 4 else nn.Linear(entering.shape[-1], entering.shape[-1])
