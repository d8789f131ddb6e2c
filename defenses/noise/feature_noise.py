"""Gaussian noise on a map, with deviations that training can move."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attacks.draws import Draws

GRANULARITIES = ("element", "channel", "layer")


class FeatureNoise(nn.Module):
    """x + sigma z, z standard normal: one number per example and element. [B, *shape] -> [B, *shape]

    `sigma` is the deviation of each element, of each channel, or of the whole layer; its shape goes with the map's.
    `draws` is the source of z, keyed by example; whoever calls gives it (`attacks.sources`).
    """

    draws: Draws | None

    def __init__(self, shape: tuple[int, ...], granularity: str, sigma: float) -> None:
        super().__init__()
        self.draws = None
        self.sigma = nn.Parameter(_laid_out_as_maps(torch.full(_shared(shape, granularity), sigma)))
        self.sharing = math.prod(shape) // self.sigma.numel()
        """How many elements have one deviation in common."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.draws is not None, "noise without a source"
        return x + (self.sigma * _standard_normal(self.draws, x)).to(x.dtype)


def _shared(shape: tuple[int, ...], granularity: str) -> tuple[int, ...]:
    """The shape of sigma: 1 wherever it is the same. A sequence of tokens [N, C] has its channels last."""
    if granularity == "element":
        return shape
    channel = 1 if len(shape) == 2 else 0
    is_kept = [granularity == "channel" and axis == channel for axis in range(len(shape))]
    return tuple(length if kept else 1 for length, kept in zip(shape, is_kept, strict=True))


def _standard_normal(draws: Draws, x: Tensor) -> Tensor:
    """Counted with channels last, as maps lie in memory: the same numbers whatever the layout of x. -> like x"""
    if x.dim() != 4:
        return draws.coarse_normal(*x.shape[1:])
    _, channels, height, width = x.shape
    return draws.coarse_normal(height, width, channels).permute(0, 3, 1, 2)


def _laid_out_as_maps(sigma: Tensor) -> Tensor:
    """[C, H, W] with channels last in memory, others as they are."""
    return sigma.permute(1, 2, 0).contiguous().permute(2, 0, 1) if sigma.dim() == 3 else sigma
