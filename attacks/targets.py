"""Which classes a targeted attack aims at, and what it then maximises."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def likeliest_targets(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` wrong classes with the largest logits, best first; all of them where there are fewer. -> [B, T]"""
    others = logits.scatter(1, y[:, None], -math.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : min(count, logits.shape[1] - 1)]


def aimed(y: Tensor, targets: Tensor) -> Tensor:
    """Class and target of each example, as the losses below take them. [B], [B] -> [B, 2]"""
    return torch.stack([y, targets], 1)


def targeted_margin(logits: Tensor, aim: Tensor) -> Tensor:
    """The logit of the target minus that of the class. [B, K], [B, 2] -> [B]"""
    true, target = logits.gather(1, aim).unbind(1)
    return target - true


def targeted_dlr(logits: Tensor, aim: Tensor) -> Tensor:
    """The targeted margin over the gap between the best logit and the mean of third and fourth. [B, K], [B, 2] -> [B]

    Croce, Hein 2020, arXiv 2003.01690, equation 7. It needs four classes: with three the fourth is left out, and with
    two, where no scale is left that the margin does not set itself, it is the targeted margin.
    """
    classes = logits.shape[1]
    if classes < 3:
        return targeted_margin(logits, aim)
    best = logits.topk(min(classes, 4), dim=1).values
    return targeted_margin(logits, aim) / (best[:, 0] - best[:, 2:].mean(1) + 1e-12)
