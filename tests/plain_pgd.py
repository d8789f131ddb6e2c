"""PGD as one writes it by hand, independent of attacks/: what ours is held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.threat import Threat


def plain_loop(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int) -> Tensor:
    """The end of `steps` steps of 2.5 eps / steps from the image: mean loss, steps on delta. -> like x"""
    size, delta = 2.5 * threat.eps / steps, torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_(True)
        F.cross_entropy(model(x + delta), y).backward()
        gradient, delta = delta.grad, delta.detach()
        assert gradient is not None
        if threat.norm == "linf":
            delta = (delta + size * gradient.sign()).clamp(-threat.eps, threat.eps)
        elif threat.norm == "l2":
            delta = delta + size * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
            delta = delta * (threat.eps / delta.flatten(1).norm(dim=1).clamp(min=threat.eps)).view(-1, 1, 1, 1)
        else:
            delta = plain_l1_projection(x, filled_up(x + delta, gradient, size) - x, threat.eps)
        delta = (x + delta).clamp(0, 1) - x
    model.zero_grad()
    return x + delta


def filled_up(x: Tensor, gradient: Tensor, budget: float) -> Tensor:
    """One pixel after the other to its wall, steepest first, until the budget is spent."""
    filled = x.flatten(1).numpy().astype(float)
    slopes = gradient.flatten(1).numpy()
    for pixels, slope in zip(filled, slopes, strict=True):
        left = budget
        for place in np.argsort(-abs(slope), kind="stable"):
            if left <= 0 or slope[place] == 0:
                break
            before = pixels[place]
            pixels[place] = min(before + left, 1) if slope[place] > 0 else max(before - left, 0)
            left -= abs(pixels[place] - before)
    return torch.tensor(filled).view_as(x)


def plain_l1_projection(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """Take the same off every pixel's move, found by bisection, so that what the box leaves spends eps."""
    delta, clean = delta.double(), x.double()
    low, high = torch.zeros(len(x), 1, 1, 1, dtype=torch.float64), delta.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
    shrunk = (clean + delta).clamp(0, 1) - clean
    is_long = (shrunk.abs().flatten(1).sum(1) > eps).view(-1, 1, 1, 1)
    for _ in range(40):
        middle = (low + high) / 2
        short = (clean + delta.sign() * (delta.abs() - middle).clamp(min=0)).clamp(0, 1) - clean
        too_long = short.abs().flatten(1).sum(1).view(-1, 1, 1, 1) > eps
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    return torch.where(is_long, short, shrunk).to(x.dtype)
