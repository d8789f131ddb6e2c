"""The first layer of every network: images in [0, 1] become channels of mean 0 and deviation 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std per channel, with fixed buffers: the identity until training sets them.

    Being a layer, it travels with the weights, and an attack always acts on pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def set(self, mean: Tensor, std: Tensor) -> None:
        """`mean` and `std` [C], in units of the range [0, 1]."""
        self.mean.copy_(mean[:, None, None])
        self.std.copy_(std[:, None, None])
