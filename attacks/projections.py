"""The nearest point an attacker may use: projections on the ball around an image, cut with the box [0, 1].

Each row is one example. What is inside comes back as it was, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.threat import Threat


def project(x: Tensor, point: Tensor, threat: Threat) -> Tensor:
    """The nearest allowed point to `point`. [B, ...], [B, ...] -> [B, ...]

    Exact for linf and l1. For l2 the point is projected on the ball, then clipped to the box: it is in both, but
    it is not always the nearest one in both.
    """
    if threat.eps == 0:
        return x.clone()
    if threat.norm == "linf":
        return point.clamp(x - threat.eps, x + threat.eps).clamp_(0, 1)
    if threat.norm == "l2":
        delta = point - x
        scale = _shrinking(delta, threat.eps)
        return torch.where(scale < 1, _rounded_towards(x, delta * scale), point).clamp_(0, 1)
    return _onto_l1_ball_and_box(x, point, threat.eps)


def project_each(x: Tensor, point: Tensor, norm: str, radius: Tensor) -> Tensor:
    """`project` with a radius for each example, which may be infinite. [B, ...], [B, ...], [B] -> [B, ...]"""
    reach = radius.clamp(max=x[0].numel() if len(x) else 1).view(-1, *[1] * (x.dim() - 1))  # further than any corner
    if norm == "linf":
        return torch.minimum(torch.maximum(point, x - reach), x + reach).clamp_(0, 1)
    if norm == "l2":
        delta = point - x
        return (x + delta * _shrinking(delta, reach.flatten().double())).clamp_(0, 1)
    return _onto_l1_ball_and_box(x, point, reach.flatten(1).double())


def onto_ball(delta: Tensor, threat: Threat) -> Tensor:
    """The nearest move of length `eps` at most, without the box. [B, ...] -> [B, ...]"""
    if threat.norm == "linf":
        return delta.clamp(-threat.eps, threat.eps)
    if threat.norm == "l2":
        return delta * _shrinking(delta, threat.eps)
    size = delta.abs().double().flatten(1)
    short = (size - _l1_threshold(size, threat.eps)).clamp_(min=0)
    return torch.copysign(short.view_as(delta).to(delta.dtype), delta)


def _shrinking(delta: Tensor, eps: float | Tensor) -> Tensor:
    """The factor in [0, 1] that brings a row to length `eps`: below 1 only where it is too long. -> [B, 1, ...]

    `eps` is one number or one for each row, [B].
    """
    size = torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64)
    scale = torch.where(size > eps, eps / size, 1.0)
    return scale.to(delta.dtype).view(-1, *[1] * (delta.dim() - 1))


def _l1_threshold(size: Tensor, eps: float) -> Tensor:
    """What to take off every entry of `size` >= 0 so that they sum to `eps` at most. [B, d] -> [B, 1]

    By sorting, after Duchi, Shalev-Shwartz, Singer, Chandra 2008.
    """
    ordered = size.sort(dim=1, descending=True).values
    surplus = ordered.cumsum(1) - eps
    count = torch.arange(1, size.shape[1] + 1, device=size.device)
    kept = (ordered * count > surplus).sum(1, keepdim=True).clamp_(min=1)
    return (surplus.gather(1, kept - 1) / kept).clamp_(min=0)


def _onto_l1_ball_and_box(x: Tensor, point: Tensor, eps: float | Tensor) -> Tensor:
    """The exact projection on ball and box together, which clipping is not (Croce, Hein 2021, arXiv 2103.01208).

    The nearest point moves pixel i by clamp(|point_i - x_i| - t, 0, room_i), where t >= 0 is the least that spends
    `eps` at most, which is one number or one for each row, [B, 1]. In float64,
    then rounded towards x, so that many small errors never add up to a point outside.
    """
    wish = (point.double() - x).flatten(1)
    clean = x.double().flatten(1)
    room = torch.where(wish > 0, 1 - clean, clean)  # exact: in float32, 1 - x is not
    size = wish.abs()
    short = torch.minimum((size - _box_threshold(size, room, eps)).clamp_(min=0), room)
    return _rounded_towards(x, torch.copysign(short, wish).view_as(x))


def _box_threshold(size: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """The least t >= 0 for which sum(clamp(size - t, 0, room)) <= eps. [B, d], [B, d] -> [B, 1]

    The sum falls piecewise linearly in t, its slope changing where an entry leaves its wall (size - room) and
    where it reaches 0 (size): walk the sorted corners to the piece that crosses `eps`.
    """
    corner, order = torch.cat([(size - room).clamp_(min=0), size], 1).sort(dim=1)
    leaves_wall = order < size.shape[1]
    falling = torch.where(leaves_wall, 1, -1).cumsum(1)[:, :-1]  # entries between wall and 0, after each corner
    spent = torch.minimum(size, room).sum(1, keepdim=True)
    left = spent - (falling * corner.diff(dim=1)).cumsum(1)  # the sum at each corner but the first
    left = torch.cat([spent, left], 1)
    piece = (left > eps).sum(1, keepdim=True).clamp_(1, falling.shape[1]) - 1
    threshold = corner.gather(1, piece) + (left.gather(1, piece) - eps) / falling.gather(1, piece).clamp_(min=1)
    return torch.where(spent > eps, threshold, 0.0)


def _rounded_towards(x: Tensor, delta: Tensor) -> Tensor:
    """x + delta in the type of x, never further from x than delta says. -> like x

    On a flat image the roundings of all pixels go one way: an l2 move of 0.05 over 3x32x32 pixels, each rounded to
    the nearest, is up to 7e-6 of itself too long, which `Threat.allows` refuses.
    """
    point = (x + delta).to(x.dtype)
    too_far = (point.to(delta.dtype) - x).abs() > delta.abs()
    return torch.where(too_far, torch.nextafter(point, x), point)
