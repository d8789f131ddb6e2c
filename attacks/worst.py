"""The worst point seen so far, for each example apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.losses import margin


class Worst:
    """Of the points shown to it, per example, the one with the largest margin; one that fools beats one that does not.

    Fooling is what `argmax` says, so that a tie of logits counts as it does in an evaluation. Before the first point
    it holds the clean image.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.adversarial = x.clone()  # [B, C, H, W]
        self.is_fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self._margin = torch.full((len(x),), -math.inf, device=x.device)
        self._y = y

    def see(self, point: Tensor, logits: Tensor) -> None:
        """Keep the rows of `point` that are worse than what was seen before. [B, C, H, W], [B, K]"""
        is_fooled, score = logits.argmax(1) != self._y, margin(logits, self._y)
        is_worse = _beats(is_fooled, score, self.is_fooled, self._margin)
        self.adversarial = torch.where(is_worse.view(-1, *[1] * (point.dim() - 1)), point, self.adversarial)
        self.is_fooled = torch.where(is_worse, is_fooled, self.is_fooled)
        self._margin = torch.where(is_worse, score, self._margin)

    def absorb(self, rows: Tensor, other: Worst) -> None:
        """The same for the worst of another run on the examples at the positions `rows` only."""
        is_worse = _beats(other.is_fooled, other._margin, self.is_fooled[rows], self._margin[rows])
        rows = rows[is_worse]
        self.adversarial = self.adversarial.index_copy(0, rows, other.adversarial[is_worse])
        self.is_fooled = self.is_fooled.index_copy(0, rows, other.is_fooled[is_worse])
        self._margin = self._margin.index_copy(0, rows, other._margin[is_worse])


def _beats(is_fooled: Tensor, score: Tensor, was_fooled: Tensor, best: Tensor) -> Tensor:
    return (is_fooled & ~was_fooled) | ((is_fooled == was_fooled) & (score > best))
