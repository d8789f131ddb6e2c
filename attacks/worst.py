"""The worst point seen so far, for each example apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.losses import margin

_ROUNDING = 1e-5  # of the largest logit: what another batch or machine may round away of a margin


class Worst:
    """Of the points shown to it, per example, the one with the largest margin; one that fools beats one that does not.

    Fooling is what `argmax` says, so that a tie of logits counts as it does in an evaluation. Before the first point
    it holds the clean image. `is_clear` where the worst fools by more than rounding could take back.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.adversarial = x.clone()  # [B, C, H, W]
        self.is_fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.is_clear = self.is_fooled
        self._margin = torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
        self._y = y

    def see(self, point: Tensor, logits: Tensor, is_open: Tensor | None = None) -> None:
        """Keep the rows of `point` that are worse than what was seen before. [B, C, H, W], [B, K], rows in question"""
        is_fooled, score, is_clear = self._judged(logits, self._y)
        is_worse = _beats(is_fooled, score, self.is_fooled, self._margin)
        if is_open is not None:
            is_worse &= is_open
        self.adversarial = torch.where(is_worse.view(-1, *[1] * (point.dim() - 1)), point, self.adversarial)
        self.is_fooled = torch.where(is_worse, is_fooled, self.is_fooled)
        self.is_clear = torch.where(is_worse, is_clear, self.is_clear)
        self._margin = torch.where(is_worse, score, self._margin)

    def see_some(self, rows: Tensor, point: Tensor, logits: Tensor) -> Tensor:
        """The same for points of the examples at the positions `rows`; gives the positions where they were kept."""
        is_fooled, score, is_clear = self._judged(logits, self._y[rows])
        is_worse = _beats(is_fooled, score, self.is_fooled[rows], self._margin[rows])
        taken = is_worse.nonzero().flatten()
        if not len(taken):
            return taken
        kept = rows[taken]
        self.adversarial[kept] = point[taken]
        self.is_fooled = self.is_fooled.index_copy(0, kept, is_fooled[taken])
        self.is_clear = self.is_clear.index_copy(0, kept, is_clear[taken])
        self._margin = self._margin.index_copy(0, kept, score[taken])
        return kept

    def select(self, rows: Tensor) -> Worst:
        """The same for some of the examples."""
        some = Worst.__new__(Worst)
        for name, value in vars(self).items():
            setattr(some, name, value[rows])
        return some

    def put(self, rows: Tensor, other: Worst) -> None:
        """Take over all that another run found of the examples at the positions `rows`."""
        for name, value in vars(self).items():
            setattr(self, name, value.index_copy(0, rows, getattr(other, name)))

    def _judged(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        is_fooled, score = logits.argmax(1) != y, margin(logits, y).to(self._margin.dtype)
        return is_fooled, score, is_fooled & (score > _ROUNDING * logits.abs().amax(1))

    def absorb(self, rows: Tensor, other: Worst) -> None:
        """What another run on the examples at the positions `rows` found, where it is worse."""
        is_worse = _beats(other.is_fooled, other._margin, self.is_fooled[rows], self._margin[rows])
        self.put(rows[is_worse], other.select(is_worse))


def _beats(is_fooled: Tensor, score: Tensor, was_fooled: Tensor, best: Tensor) -> Tensor:
    return (is_fooled & ~was_fooled) | ((is_fooled == was_fooled) & (score > best))
