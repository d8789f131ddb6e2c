"""One run of FAB: to the linearised boundary, over it, and back towards the image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.hyperplanes import onto_plane
from attacks.projections import project
from attacks.queries import Queries
from attacks.survivors import Survivors
from attacks.targets import targeted_margin
from attacks.threat import Threat, length

_OVERSHOOT = 1.05  # of a step to the boundary
_MOST_BIAS = 0.1  # largest weight of the step that starts from the image
_BACK = 0.9  # of the way from the image, where a misclassified point is put back to

Values = Callable[[Tensor, Tensor], Tensor]  # logits [B, K], aim -> [B, M]: above 0 beyond each boundary
_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def target_margin(logits: Tensor, aim: Tensor) -> Tensor:
    """[B, K], class and target [B, 2] -> [B, 1]"""
    return targeted_margin(logits, aim)[:, None]


def other_margins(logits: Tensor, y: Tensor) -> Tensor:
    """Each other logit minus that of the class. [B, K], [B] -> [B, K - 1]"""
    classes = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = classes + (classes >= y[:, None])  # without the class itself
    return logits.gather(1, others) - logits.gather(1, y[:, None])


def walk(
    queries: Queries, survivors: Survivors, aim: Tensor, values: Values, start: Tensor, threat: Threat, steps: int
) -> None:
    """Show the survivors each point inside the threat that a run of `steps` from `start` comes to, its best at last."""
    point, nearest = start, start
    least = torch.full((len(start),), torch.inf, dtype=start.dtype, device=start.device)  # distance of a wrong point
    for step in range(steps):
        if not len(survivors):
            return
        x, source = survivors.x, survivors.draws.fork("step", step)
        value, slope = _nearest_boundary(queries, point, aim, values, threat.norm, source)
        point = _step(x, point, value, slope, threat.norm)
        is_there = point.isfinite().flatten(1).all(1)[:, None, None, None]  # not where logits or slopes are NaN
        point = torch.where(is_there, point, x)
        logits = queries.logits(point, source.fork("check"))
        distance = length(point - x, threat.norm)
        is_wrong = logits.argmax(1) != survivors.y
        is_nearer = is_wrong & (distance < least)
        least = torch.where(is_nearer, distance, least)
        nearest = torch.where(is_nearer[:, None, None, None] | least.isinf()[:, None, None, None], point, nearest)
        staying = _shown(survivors, point, logits, distance, threat)
        point = torch.where(is_wrong[:, None, None, None], torch.lerp(x, point, _BACK), point)
        if staying is not None:
            point, nearest, least, aim = point[staying], nearest[staying], least[staying], aim[staying]
    if len(survivors):
        last = project(survivors.x, nearest, threat)
        survivors.see(last, queries.logits(last, survivors.draws.fork("last")))


def _shown(survivors: Survivors, point: Tensor, logits: Tensor, distance: Tensor, threat: Threat) -> Tensor | None:
    """Show the survivors those of the points that are inside the threat."""
    may_be_inside = distance <= threat.eps * (1 + 1e-5)
    if not point.is_cuda and not may_be_inside.any():
        return None  # most steps: to ask `allows`, in float64, would cost as much as a tenth of a pass
    return survivors.see(point, logits, may_be_inside & threat.allows(survivors.x, point))


def _nearest_boundary(
    queries: Queries, point: Tensor, aim: Tensor, values: Values, norm: str, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Value and slope of the boundary which is nearest by its linearisation. -> [B], [B, d]"""
    value, slope, _ = queries.slopes(point, lambda logits: values(logits, aim), draws)
    slope = slope.flatten(2)
    size = length(slope.flatten(0, 1), _DUAL[norm]).view(value.shape)
    first = (value.abs() / (size + 1e-12)).argmin(1)
    everyone = torch.arange(len(first), device=first.device)
    return value[everyone, first], slope[everyone, first]


def _step(x: Tensor, point: Tensor, value: Tensor, slope: Tensor, norm: str) -> Tensor:
    """A weighted mean of the ways to the boundary from the point and from the image, both a bit too long. -> like x"""
    here, clean = point.flatten(1), x.flatten(1)
    from_here = onto_plane(here, slope, -value, norm)
    from_clean = onto_plane(clean, slope, (slope * (here - clean)).sum(1) - value, norm)
    own, other = (length(move, norm).clamp(min=1e-8) for move in (from_here, from_clean))
    bias = (own / (own + other)).clamp(max=_MOST_BIAS)[:, None]
    moved = (here + _OVERSHOOT * from_here) * (1 - bias) + (clean + _OVERSHOOT * from_clean) * bias
    return moved.clamp(0, 1).view_as(x)
