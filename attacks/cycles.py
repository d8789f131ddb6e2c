"""Paths that come back to a point they were at before."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import Draws


class Cycles:
    """The points that each row's path has been at, by a number of 64 bits each.

    Where a step depends on the point alone, a path that is back at a point goes round from there on: there is nothing
    new to be found on it. After arXiv 2503.19347 (2025), who stop there. `x` [B, ...] says how many pixels there are.
    """

    def __init__(self, x: Tensor) -> None:
        size = x[0].numel() if len(x) else 1
        words = Draws(0, torch.arange(1, device=x.device)).fork("cycles").integers(2**53, size)[0]
        self._weights = words * 2 + 1
        self._past = torch.zeros(len(x), 0, dtype=torch.int64, device=x.device)

    def is_back(self, point: Tensor) -> Tensor:
        """Which rows were at this very point before. bool [B]"""
        kind = torch.int64 if point.dtype == torch.float64 else torch.int32
        words = point.flatten(1).contiguous().view(kind).to(torch.int64)
        number = (words * self._weights).sum(1, keepdim=True)  # modulo 2^64
        is_back = (self._past == number).any(1)
        self._past = torch.cat([self._past, number], 1)
        return is_back

    def select(self, rows: Tensor) -> None:
        self._past = self._past[rows]
