"""What an attacker maximises: one number per example, from logits and true labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]  # logits [B, K], y [B] -> [B]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log of the probability of the true class. [B, K], [B] -> [B]"""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best other logit minus the true one: positive where the example is misclassified. [B, K], [B] -> [B]

    The true class is masked with -inf, not multiplied by zero, which would win where all logits are negative.
    """
    true = y[:, None]
    others = logits.scatter(1, true, -math.inf)
    return others.amax(1) - logits.gather(1, true).squeeze(1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The margin divided by the gap between the best and the third logit: blind to their scale. [B, K], [B] -> [B]

    Difference of logits ratio (Croce, Hein 2020, arXiv 2003.01690). Raises ValueError below three classes,
    where it is not defined.
    """
    classes = logits.shape[1]
    if classes < 3:
        raise ValueError(f"loss dlr: needs at least 3 classes, got {classes}; use margin or cross_entropy")
    best = logits.topk(3, dim=1).values
    return margin(logits, y) / (best[:, 0] - best[:, 2] + 1e-12)


def scaled_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits brought to a span of 10 from the least to the largest. [B, K], [B] -> [B]

    Where logits are so large that the softmax is 1 to the last bit, the gradient of cross-entropy is 0 or noise; here
    it never is. Carlini, Wagner 2016, arXiv 1607.04311, divided by a constant. The scale is one to the gradient.
    """
    span = (logits.amax(1, keepdim=True) - logits.amin(1, keepdim=True)).detach()
    return cross_entropy(logits * (10 / span.clamp(min=_LEAST_SPAN)), y)


_LEAST_SPAN = 1e-30  # of float32: ten over it is still far from infinity

LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "scaled_cross_entropy": scaled_cross_entropy,
}
