"""The nearest point of a ball, and of a ball cut with the box [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.threat import Threat, length


def project(x: Tensor, adversarial: Tensor, threat: Threat) -> Tensor:
    """Bring each image into the ball round `x` and the box. [B, ...], [B, ...] -> [B, ...]

    The nearest point for linf and l1; for l2 the ball first, then the box, which stays in both.
    """
    if threat.norm == "linf":
        return adversarial.clamp(x - threat.eps, x + threat.eps).clamp(0, 1)
    if threat.norm == "l2":
        return (x + shrink(adversarial - x, threat)).clamp(0, 1)
    return x + _onto_l1_in_box(adversarial - x, x, threat.eps)


def shrink(delta: Tensor, threat: Threat) -> Tensor:
    """The nearest point of the ball round 0: what is inside stays as it is. [B, ...] -> [B, ...]"""
    if threat.norm == "linf":
        return delta.clamp(-threat.eps, threat.eps)
    if threat.norm == "l2":
        return delta * _column(threat.eps / length(delta, "l2").clamp_min(1e-30), delta).clamp_max(1)
    return _onto_l1(delta, threat.eps)


def _onto_l1(delta: Tensor, eps: float) -> Tensor:
    """Soft thresholding, the threshold found by sorting (Duchi et al. 2008)."""
    size = delta.flatten(1).abs()
    falling = size.sort(dim=1, descending=True).values
    ranks = torch.arange(1, size.shape[1] + 1, device=size.device)
    candidates = (falling.cumsum(1) - eps) / ranks
    kept = (falling > candidates).sum(1, keepdim=True).clamp_min(1)
    threshold = candidates.gather(1, kept - 1).clamp_min(0)
    threshold = torch.where(size.sum(1, keepdim=True) > eps, threshold, torch.zeros_like(threshold))
    return (delta.flatten(1).sign() * (size - threshold).clamp_min(0)).view_as(delta)


def _onto_l1_in_box(delta: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point of the l1 ball cut with the box: soft thresholding, then clipping, at one threshold.

    The l1 length after both falls with the threshold, piece by piece in straight lines; 64 halvings find it in float64.
    """
    wanted, low, high = delta.flatten(1).double(), -x.flatten(1).double(), (1 - x.flatten(1)).double()

    def at(threshold: Tensor) -> Tensor:
        return (wanted.sign() * (wanted.abs() - threshold).clamp_min(0)).clamp(low, high)

    below = torch.zeros(len(wanted), 1, dtype=wanted.dtype, device=wanted.device)
    inside = at(below).abs().sum(1, keepdim=True) <= eps
    above = wanted.abs().amax(1, keepdim=True)
    for _ in range(64):
        middle = (below + above) / 2
        is_long = at(middle).abs().sum(1, keepdim=True) > eps
        below, above = torch.where(is_long, middle, below), torch.where(is_long, above, middle)
    threshold = torch.where(inside, torch.zeros_like(above), above)
    return at(threshold).to(delta.dtype).view_as(delta)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ..., 1]"""
    return values.view(-1, *[1] * (like.ndim - 1))
