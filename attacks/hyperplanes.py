"""The nearest point of a plane within the box [0, 1], in each norm."""

from __future__ import annotations

import torch
from torch import Tensor

_CLOSE = 1e-6  # of the way that a move has to go
_TRIALS = 30


def onto_plane(point: Tensor, slope: Tensor, rise: Tensor, norm: str) -> Tensor:
    """The shortest move within the box for which slope . move = rise. [B, d], [B, d], [B] -> [B, d]

    Where the box leaves too little room, the move goes as far along the slope as it can. Croce, Hein 2020, arXiv
    1907.02044, section 2.3. They sort; here, for linf and l2, Newton's method finds the multiplier: it ends, since what
    it solves is concave and piecewise linear.
    """
    slope = slope * rise.sign()[:, None]
    steep, rise = slope.abs(), rise.abs()
    room = torch.where(slope > 0, 1 - point, point)
    moves = _steepest_first(steep, room, rise) if norm == "l1" else _together(steep, room, rise, norm)
    return moves * slope.sign()


def _steepest_first(steep: Tensor, room: Tensor, rise: Tensor) -> Tensor:
    """l1: one pixel after the other to its wall, steepest first, until the rise is reached."""
    ordered, order = steep.sort(dim=1, descending=True)
    wall = room.gather(1, order)
    gain = ordered * wall
    missing = rise[:, None] - (gain.cumsum(1) - gain)  # before each pixel
    moves = torch.minimum((missing / ordered.clamp(min=1e-30)).clamp_(min=0), wall)
    return torch.zeros_like(steep).scatter_(1, order, moves)


def _together(steep: Tensor, room: Tensor, rise: Tensor, norm: str) -> Tensor:
    """linf: all pixels at one speed, l2: each as fast as it is steep, until it is at its wall."""
    worth = torch.where(room > 0, steep if norm == "linf" else steep.square(), 0)
    time = rise / worth.sum(1).clamp(min=1e-30)
    for _ in range(_TRIALS):
        moves = _moves(time, steep, room, norm)
        missing = rise - (steep * moves).sum(1)
        rate = torch.where(moves < room, worth, 0).sum(1)
        is_short = (missing > _CLOSE * rise) & (rate > 0)
        if not steep.is_cuda and not is_short.any():
            break
        time = torch.where(is_short, time + missing / rate.clamp(min=1e-30), time)
    return _moves(time, steep, room, norm)


def _moves(time: Tensor, steep: Tensor, room: Tensor, norm: str) -> Tensor:
    return torch.minimum(time[:, None] if norm == "linf" else time[:, None] * steep, room)
