"""Where to go: the steepest direction of a norm, and a random start in its ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.threat import Threat, length

L1_SHARE = 0.01  # of the pixels that one l1 step moves, the steepest ones


def steepest(gradient: Tensor, x: Tensor, norm: str) -> Tensor:
    """The unit step of `norm` along which a loss with this gradient grows most, per image. [B, ...] -> [B, ...]

    For l1 the step is spread over the steepest pixels that the box lets move (one would be steepest of all, and
    slow). A zero gradient gives a zero step.
    """
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return gradient / length(gradient, "l2").clamp_min(1e-30).view(-1, *[1] * (gradient.ndim - 1))
    return _sparse_sign(gradient, x)


def random_start(x: Tensor, threat: Threat, draws: Draws) -> Tensor:
    """A point of the ball: uniform in it for linf and l2, on a random radius for l1. Not yet inside the box."""
    shape = x.shape[1:]
    if threat.norm == "linf":
        return x + draws.uniform(*shape, low=-threat.eps, high=threat.eps)
    column = (-1, *[1] * len(shape))
    size = math.prod(shape)
    radius = threat.eps * draws.fork("radius").uniform(1) ** (1 / size)
    if threat.norm == "l2":
        heading = draws.normal(*shape)
    else:  # signed exponentials, normalised, are uniform on the l1 sphere
        heading = -torch.log1p(-draws.uniform(*shape)) * draws.fork("signs").signs(*shape)
    return x + heading * (radius.view(-1) / length(heading, threat.norm).clamp_min(1e-30)).view(column)


def _sparse_sign(gradient: Tensor, x: Tensor) -> Tensor:
    flat, at = gradient.flatten(1), x.flatten(1)
    can_move = ((flat > 0) & (at < 1)) | ((flat < 0) & (at > 0))
    strength = torch.where(can_move, flat.abs(), torch.zeros_like(flat))
    count = max(1, round(L1_SHARE * flat.shape[1]))
    chosen = strength.topk(count, dim=1).indices
    step = torch.zeros_like(flat).scatter(1, chosen, flat.gather(1, chosen).sign())
    step = step * can_move
    return (step / step.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)
