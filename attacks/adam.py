"""Adam (Kingma, Ba 2015, arXiv 1412.6980) over examples that may leave, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST, _SECOND, _LEAST = 0.9, 0.999, 1e-8


class Adam:
    """The two moments of what is moved, with the paper's constants. Rows do not meet."""

    def __init__(self, like: Tensor, learning_rate: float) -> None:
        self.learning_rate, self.steps = learning_rate, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def moved(self, point: Tensor, gradient: Tensor) -> Tensor:
        """`point` one step further down."""
        self.steps += 1
        self._mean = _FIRST * self._mean + (1 - _FIRST) * gradient
        self._square = _SECOND * self._square + (1 - _SECOND) * gradient.square()
        mean = self._mean / (1 - _FIRST**self.steps)
        square = self._square / (1 - _SECOND**self.steps)
        return point - self.learning_rate * mean / (square.sqrt() + _LEAST)

    def keep(self, rows: Tensor) -> None:
        """Only these examples go on. bool [B]"""
        self._mean, self._square = self._mean[rows], self._square[rows]
