"""What the Square attack tries: a first point, and then one window of each image changed. Numbers come in [0, 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.projections import project
from attacks.threat import Threat, length
from attacks.windows import bumps, corners, odd_side, pixels

_TILES = 5  # of the first point in l2 and l1, along each side


def stripes(x: Tensor, threat: Threat, draws: Draws) -> Tensor:
    """linf: columns one pixel wide, each at one end of the ball. -> like x"""
    sign = draws.signs(x.shape[1], 1, x.shape[3])
    low, high = ends(x, threat)
    return torch.where(sign > 0, high, low)


def ends(x: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """The least and the largest allowed value of each pixel in linf."""
    return (x - threat.eps).clamp_(min=0), (x + threat.eps).clamp_(max=1)


def set_window(
    x: Tensor, point: Tensor, numbers: Tensor, side: int, threat: Threat, ask_all: bool = True
) -> tuple[Tensor, Tensor]:
    """linf: each channel of the window at one end of the ball. `numbers` [B, 3]: place, and which end.

    Gives the rows, all of them or those where something changes, and their new points. -> positions, like x
    """
    channels, height, width = x.shape[1:]
    places = pixels(*corners(numbers[:, :2], side, height, width), side, width)[:, None, :].expand(-1, channels, -1)
    is_high = (pattern(numbers, channels)[:, None] >> torch.arange(channels, device=x.device)) & 1
    low, high = ends(x.flatten(2).gather(2, places), threat)
    end = torch.where(is_high.bool()[:, :, None], high, low)
    rows = torch.arange(len(x), device=x.device)
    if not ask_all:
        rows = (end != point.flatten(2).gather(2, places)).flatten(1).any(1).nonzero().flatten()
        places, end = places[rows], end[rows]
    changed = point[rows]  # a copy
    changed.flatten(2).scatter_(2, places, end)
    return rows, changed


def pattern(numbers: Tensor, channels: int) -> Tensor:
    """Which channels go up: a number below 2^C. int64 [B]"""
    return (numbers[:, 2].double() * float(1 << channels)).long()


def tiles(x: Tensor, threat: Threat, draws: Draws) -> Tensor:
    """l2 and l1: a chequered field of bumps. -> like x"""
    count, channels, height, width = x.shape
    side = max(height // _TILES, 1)
    down, right = height // side, width // side
    signs = draws.fork("signs").signs(channels, down, 1, right, 1)
    turned = draws.fork("turned").signs(1, down, 1, right, 1) > 0
    bump = bumps(side, threat.norm, x.device)
    field = signs * torch.where(turned, bump[:, None, :], bump.T[:, None, :])  # [B, C, down, side, right, side]
    delta = x.new_zeros(x.shape)
    top, left = (height - down * side) // 2, (width - right * side) // 2
    delta[:, :, top : top + down * side, left : left + right * side] = field.reshape(
        count, channels, down * side, right * side
    ).to(x.dtype)
    return _stretched(x, delta, threat)


def move_budget(x: Tensor, point: Tensor, numbers: Tensor, side: int, threat: Threat) -> Tensor:
    """l2 and l1: what two windows have spent of eps, and what nobody has, is spent anew in the first. -> like x

    The new content is a bump, of random sign in each channel, added to the direction of the old. `numbers` [B, 5 + C].
    """
    channels, height, width = x.shape[1:]
    side = odd_side(side, height, width)
    delta = (point - x).flatten(2)  # [B, C, H * W]
    first, second = (
        pixels(*corners(place, side, height, width), side, width)[:, None, :].expand(-1, channels, -1)
        for place in (numbers[:, :2], numbers[:, 2:4])
    )
    outside = delta.scatter(2, first, 0).scatter(2, second, 0)
    spent = _lengths(delta - outside, threat.norm)  # [B, C]
    old = delta.gather(2, first)
    old = old / _lengths(old, threat.norm).clamp(min=1e-12)[:, :, None]
    new = old + _signed_bumps(numbers, side, channels, threat.norm).to(x)
    size = _budget(spent, length(delta, threat.norm), threat) / _lengths(new, threat.norm).clamp(min=1e-12)
    delta = outside.scatter(2, first, new * size[:, :, None])
    return _stretched(x, delta.view_as(x), threat)


def _signed_bumps(numbers: Tensor, side: int, channels: int, norm: str) -> Tensor:
    """-> [B, C, side * side]"""
    bump = bumps(side, norm, numbers.device)
    turned = torch.where((numbers[:, 4] < 0.5)[:, None], bump.flatten(), bump.T.flatten())
    return torch.where(numbers[:, 5 : 5 + channels] < 0.5, -1.0, 1.0)[:, :, None] * turned[:, None, :]


def _budget(spent: Tensor, whole: Tensor, threat: Threat) -> Tensor:
    """What each channel may spend. [B, C], [B] -> [B, C]"""
    channels = spent.shape[1]
    if threat.norm == "l2":
        return (spent.square() + (threat.eps**2 - whole.square()).clamp(min=0)[:, None] / channels).sqrt()
    return spent * channels + (threat.eps - whole).clamp(min=0)[:, None]


def _stretched(x: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    """The point in that direction; in l2 eps away, before it is clipped to the box."""
    if threat.norm == "l2":
        size = length(delta, "l2").clamp(min=1e-12)
        delta = delta * (threat.eps / size)[:, None, None, None]
    return project(x, x + delta, threat)


def _lengths(delta: Tensor, norm: str) -> Tensor:
    """Of each channel. [B, C, ...] -> [B, C]"""
    return length(delta.flatten(0, 1), norm).view(delta.shape[:2])
