"""What an attacker makes large. All take logits [B, K] and labels [B] and give [B]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The best other logit minus the true one: positive exactly where the model is wrong. [B, K], [B] -> [B]

    The true class is masked by -inf, so that logits may all be negative.
    """
    true = logits.gather(1, y[:, None]).squeeze(1)
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return other - true


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, arXiv 2003.01690): the margin over the first minus the third logit.

    Unmoved by shifting and scaling the logits. Raises ValueError for fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"dlr: needs at least 3 classes, got {logits.shape[1]}: take margin")
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
