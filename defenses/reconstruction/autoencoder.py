"""An autoencoder for images of any size and number of channels."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SKIPS = ("none", "unet")


class Autoencoder(nn.Module):
    """Images in [0, 1] -> images in [0, 1], through maps of half the size `depth` times over.

    `width` channels at first, twice as many at each halving (rounded up), and back: nearest neighbours, then a
    convolution. In the middle `bottleneck` channels (0: as many as come to it). `skip: unet` hands each map of the way
    down to its like on the way up. A sigmoid ends it; `is_residual` adds the image before that instead, in logits of
    grey values, so that a small answer changes little.
    """

    def __init__(
        self, channels: int, width: int, depth: int, bottleneck: int, skip: str = "none", is_residual: bool = False
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        across = 2 if skip == "unet" else 1
        self.first = _convolution(channels, width)
        self.down = nn.ModuleList(_convolution(a, b, 2) for a, b in itertools.pairwise(widths))
        self.middle: nn.Module = nn.Identity()
        if bottleneck:
            self.middle = nn.Sequential(_convolution(widths[-1], bottleneck), _convolution(bottleneck, widths[-1]))
        pairs = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList(_convolution(b + (across - 1) * a, a) for a, b in pairs)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.is_skipping, self.is_residual = skip == "unet", is_residual

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same"""
        maps = [self.first(x)]
        for layer in self.down:
            maps.append(layer(maps[-1]))
        found = self.middle(maps.pop())
        for layer in self.up:
            beside = maps.pop()
            found = F.interpolate(found, size=beside.shape[2:])
            found = layer(torch.cat([found, beside], 1) if self.is_skipping else found)
        answer: Tensor = self.last(found)
        if self.is_residual:
            answer = answer + torch.logit(x, eps=_EDGE)
        return answer.sigmoid()


_EDGE = 1 / 256  # black and white have no finite logit


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU())
