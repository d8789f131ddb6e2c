"""The windows of a Square attack that need not be asked about again."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.square_moves import pattern
from attacks.windows import corners

_MOST = 20_000  # windows of an image


class Rejected:
    """Which windows a model has turned down since a row's point last changed: the same question has the same answer.

    In linf there are 2^C patterns at each place, so few on small images that most late queries are repeats. To skip
    them changes no answer and no draw.
    """

    def __init__(self, x: Tensor) -> None:
        count, self._channels, self._height, self._width = x.shape
        self._side = 0
        self._table = torch.zeros(count, 2**self._channels * self._height * self._width, dtype=torch.bool)

    @staticmethod
    def fits(x: Tensor) -> bool:
        """Whether a table is worth it: on the CPU, and small."""
        return not x.is_cuda and 2 ** x.shape[1] * x[0, 0].numel() <= _MOST

    def unasked(self, numbers: Tensor, side: int) -> Tensor:
        """The rows whose window is new; from now on it counts as asked about. [B, 3] -> positions"""
        if side != self._side:
            self._side = side
            self._table.zero_()
        top, left = corners(numbers[:, :2], side, self._height, self._width)
        window = ((pattern(numbers, self._channels) * self._height + top) * self._width + left)[:, None]
        is_new = ~self._table.gather(1, window).squeeze(1)
        self._table.scatter_(1, window, True)
        return is_new.nonzero().flatten()

    def forget(self, rows: Tensor) -> None:
        """The points of these rows have changed."""
        self._table[rows] = False

    def select(self, rows: Tensor) -> None:
        """Only these rows are left."""
        self._table = self._table[rows]
