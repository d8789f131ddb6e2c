"""The square windows of the Square attack: how large, where, and with what pattern."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from attacks.threat import length

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the share of pixels is halved


def side_at(query: int, share: float, height: int, width: int) -> int:
    """The side of the windows at a query, of `share` of the pixels at first."""
    left = share / 2 ** sum(query > halving for halving in _HALVINGS)
    return min(max(round(math.sqrt(left * height * width)), 1), height, width)


def odd_side(side: int, height: int, width: int) -> int:
    """At least 3, and odd where the image has room: what the pattern of l2 and l1 needs."""
    side = min(max(side, 3) // 2 * 2 + 1, height, width)
    return side if side % 2 else max(side - 1, 1)


def corners(places: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Top and left of windows inside the image, from numbers in [0, 1). [B, 2] -> int64 [B], [B]"""
    down, right = height - side, width - side
    top, left = places.unbind(1)
    return (top * (down + 1)).long().clamp_(max=down), (left * (right + 1)).long().clamp_(max=right)


def pixels(top: Tensor, left: Tensor, side: int, width: int) -> Tensor:
    """The positions of the windows' pixels in a flattened image. [B], [B] -> int64 [B, side * side]"""
    steps = torch.arange(side, device=top.device)
    return ((top[:, None] + steps)[:, :, None] * width + (left[:, None] + steps)[:, None, :]).flatten(1)


@functools.cache
def bumps(side: int, norm: str, device: torch.device) -> Tensor:
    """A peak above a trough, of length 1 in l2 or l1: the pattern with which their windows begin. -> [side, side]

    Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049, section 3.3; the steeper one of l1 is that of Croce,
    Hein 2021, arXiv 2103.01208.
    """
    upper = side // 2
    pattern = torch.cat([_bump(upper, side, norm), -_bump(side - upper, side, norm)])
    return (pattern / length(pattern[None], norm)).to(device)


def _bump(height: int, width: int, norm: str) -> Tensor:
    """Falls with the distance d, in the maximum norm, to the middle: the sum of k^-2 (l1: k^-4) from k = d + 1 on."""
    reach = max(height, width) // 2 + 1
    fall = 2 if norm == "l2" else 4
    tails = torch.arange(1, reach + 1).double().pow(-fall).flip(0).cumsum(0).flip(0)
    down = (torch.arange(height) - height // 2).abs()
    right = (torch.arange(width) - width // 2).abs()
    bump = tails[torch.maximum(down[:, None], right[None, :])].float()
    return bump / length(bump[None], norm).clamp(min=1e-30)
