"""Random points in the ball around an image, and on its surface."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.projections import project
from attacks.threat import Threat, length


def random_point(x: Tensor, threat: Threat, draws: Draws) -> Tensor:
    """A point uniform in the ball of the threat's norm, then clipped to the box. [B, ...] -> [B, ...]"""
    delta = _UNIT_BALL[threat.norm](draws, x[0].numel() if len(x) else 0).to(x.dtype)
    return project(x, x + threat.eps * delta.view_as(x), threat)


def surface_point(x: Tensor, threat: Threat, draws: Draws) -> Tensor:
    """Where APGD starts: a random direction as long as the ball allows, then clipped to the box. -> [B, ...]

    Uniform numbers for linf, normal ones for l2; for l1 normal ones, brought to the nearest point of ball and box.
    """
    size = x[0].numel() if len(x) else 0
    wish = draws.uniform(size, low=-1.0) if threat.norm == "linf" else draws.normal(size)
    wish = wish.to(x.dtype)
    if threat.norm != "l1":
        wish = wish * (threat.eps / length(wish, threat.norm))[:, None]
    return project(x, x + wish.view_as(x), threat)


def _in_linf_ball(draws: Draws, size: int) -> Tensor:
    return draws.uniform(size, low=-1.0)


def _in_l2_ball(draws: Draws, size: int) -> Tensor:
    """A normal direction, at a radius whose power `size` is uniform."""
    direction = draws.fork("direction").normal(size)
    radius = draws.fork("radius").uniform(1) ** (1 / max(size, 1))
    return direction * (radius / length(direction, "l2")[:, None])


def _in_l1_ball(draws: Draws, size: int) -> Tensor:
    """Exponentials over their sum are uniform on a simplex; one more of them than pixels fills it, signs mirror it."""
    sizes = -torch.log1p(-draws.fork("sizes").uniform(size + 1))
    return sizes[:, :size] / sizes.sum(1, keepdim=True) * draws.fork("signs").signs(size)


_UNIT_BALL = {"linf": _in_linf_ball, "l2": _in_l2_ball, "l1": _in_l1_ball}
