"""Nearest neighbours, exact, and the weights of the edges between them."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHTINGS = {"gaussian": 1, "quartic": 2}
"""Name -> power of (d / sigma)^2 in the exponent."""

_MOST_AT_ONCE = 2**22  # distances in memory together, 32 MiB
_LEAST_SCALE = 1e-30  # of a squared distance: points that coincide
_MOST_RATIO = 500.0  # exp(-500) is 0 for all purposes, and its gradient still finite


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """From each row of `a` to each row of `b`, float64. [A, D], [B, D] -> [A, B]

    By one matrix product, about the mean of `b` so that little is lost to cancellation.
    """
    a, b = a.double(), b.double()
    centre = b.mean(0)
    a, b = a - centre, b - centre
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)


@torch.no_grad()
def nearest(a: Tensor, b: Tensor, count: int, a_ids: Tensor, b_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The `count` rows of `b` nearest to each row of `a`, nearest first, and how far they are, squared.

    Rows of equal id are one image, which is no neighbour of itself. Exact, a part of `a` at a time.
    -> float64 [A, count], int64 [A, count]
    """
    parts = [
        squared_distances(rows, b).masked_fill_(ids[:, None] == b_ids, torch.inf).topk(count, largest=False)
        for rows, ids in zip(*parted(len(b), a, a_ids), strict=True)
    ]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def edge_weights(squared: Tensor, scale: Tensor, weighting: str) -> Tensor:
    """exp(-(d / sigma)^2), or to the fourth power, of squared distances and squared sigmas; float64, of their shape."""
    ratio = squared.double() / scale.double().clamp(min=_LEAST_SCALE)
    return torch.exp(-ratio.pow(WEIGHTINGS[weighting]).clamp(max=_MOST_RATIO))


def parted(others: int, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Each tensor in parts of so many rows that their distances to `others` points fit into memory."""
    rows = max(1, _MOST_AT_ONCE // others)
    return [torch.split(tensor, rows) for tensor in tensors]
