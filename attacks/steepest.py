"""The step that raises a loss fastest, to first order, for a given length in each norm."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.threat import length


def steepest_step(point: Tensor, gradient: Tensor, norm: str, size: float) -> Tensor:
    """`point` moved by `size` in `norm` along the steepest direction; still to be projected. [B, ...] -> [B, ...]

    A row whose gradient is zero stays where it is.
    """
    if norm == "linf":
        return torch.add(point, gradient.sign(), alpha=size)
    if norm == "l2":
        return torch.add(point, unit(gradient), alpha=size)
    return point + _sparse(point, gradient, size)


def unit(gradient: Tensor) -> Tensor:
    """Each row at l2 length 1, also where its square underflows float32; zero rows stay zero."""
    flat = gradient.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1)
    return (flat / length(flat, "l2").clamp(min=1)[:, None]).view_as(gradient)


def _sparse(point: Tensor, gradient: Tensor, size: float) -> Tensor:
    """The move of l1 length `size` within the box [0, 1] that raises a linear loss most: as few pixels as will do.

    Pixels are filled up to the wall in order of their gradient until `size` is spent. A step that moves only the one
    steepest pixel would be wasted on pixels already at the wall.
    """
    slope = gradient.flatten(1)
    room = torch.where(slope > 0, 1 - point.flatten(1), point.flatten(1)).mul_(slope != 0)
    order = slope.abs().argsort(dim=1, descending=True, stable=True)
    wall = room.gather(1, order)
    spent_before = wall.cumsum(1) - wall
    moves = torch.minimum(wall, (size - spent_before).clamp_(min=0))
    return torch.zeros_like(slope).scatter_(1, order, moves).mul_(slope.sign()).view_as(point)
