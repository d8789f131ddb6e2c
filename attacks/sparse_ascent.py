"""One run of APGD in l1: sparse steps whose number of pixels follows that of the best point."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.losses import Loss
from attacks.projections import project
from attacks.queries import Queries
from attacks.survivors import Survivors
from attacks.threat import Threat

_PHASES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # radius in eps, share of the steps
_SHRINK, _LEAST_SIZE = 1.5, 0.1  # of the number of pixels and of the step; of the first step


@dataclass
class _Run:
    """What the ascent knows of each row. In parallel tensors [B, ...]."""

    aim: Tensor
    point: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    share: Tensor  # of the pixels, that a step moves
    pixels: Tensor  # that the best point had moved at the last check
    step_size: Tensor

    def select(self, rows: Tensor) -> _Run:
        return _Run(*(getattr(self, field.name)[rows] for field in fields(self)))


def ascend_sparsely(
    queries: Queries, survivors: Survivors, aim: Tensor, loss: Loss, start: Tensor, threat: Threat, steps: int
) -> None:
    """Show the survivors the points of the last of three phases, at 3, 2 and 1 eps, each from the best one before it.

    Croce, Hein 2021, arXiv 2103.01208. A step goes along the sign of the largest entries of the gradient: a fifth of
    them at first, then two thirds of as many pixels as the best point has moved. Where these have become fewer, the
    step is as long as at first and goes from the best point; elsewhere it is shorter by a third each time.
    """
    wide, middle = (math.ceil(share * steps) for _, share in _PHASES[:2])
    lengths = (wide, middle, max(steps - wide - middle, 1))
    point = start
    for phase, length in enumerate(lengths):
        around = threat.scaled(_PHASES[phase][0])
        if phase > 0:
            point = project(survivors.x, point, around)
        point = _phase(queries, survivors, aim, loss, point, around, phase, length)


def _phase(
    queries: Queries,
    survivors: Survivors,
    aim: Tensor,
    loss: Loss,
    start: Tensor,
    threat: Threat,
    phase: int,
    steps: int,
) -> Tensor:
    """The best points for the loss. -> like start"""
    is_last = phase == len(_PHASES) - 1  # the only one whose points are in the ball
    source = ("phase", phase, "step")
    gradient, logits = queries.gradient(start, aim, loss, survivors.draws.fork(*source, 0))
    run = _begin(survivors.x, start, aim, gradient, loss(logits, aim), threat.eps, is_first=phase == 0)
    every = max(int(0.04 * steps), 1)
    if is_last:
        run = _stay(run, survivors.see(start, logits))
    for step in range(1, steps + 1):
        if not len(survivors):
            break
        run.point = project(survivors.x, run.point + _step(run), threat)
        here = survivors.draws.fork(*source, step)
        if is_last and step == steps:
            survivors.see(run.point, queries.logits(run.point, here))
            break
        run.gradient, logits = queries.gradient(run.point, run.aim, loss, here)
        _compare(run, loss(logits, run.aim))
        if is_last:
            run = _stay(run, survivors.see(run.point, logits))
        if step % every == 0 and len(survivors):
            _check(run, survivors.x, threat.eps)
    return run.best


def _begin(
    x: Tensor, start: Tensor, aim: Tensor, gradient: Tensor, loss: Tensor, step_size: float, is_first: bool
) -> _Run:
    moved = _moved(start, x)
    all_pixels = torch.full_like(moved, x[0].numel() if len(x) else 1)
    share = torch.full_like(moved, 0.2) if is_first else moved / all_pixels / _SHRINK
    pixels = all_pixels if is_first else moved
    return _Run(aim, start, gradient, start, gradient, loss, share, pixels, torch.full_like(moved, step_size))


def _stay(run: _Run, staying: Tensor | None) -> _Run:
    return run if staying is None else run.select(staying)


def _step(run: _Run) -> Tensor:
    """A move of l1 length `step_size`, in equal parts on the pixels with the largest gradient. -> like point"""
    slope = run.gradient.flatten(1)
    size = slope.shape[1]
    count = (run.share * size).long().clamp_(min=1)  # the authors' code rounds up: it never goes below two pixels
    least = slope.abs().sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
    sign = torch.where(slope.abs() >= least, slope.sign(), 0)
    parts = sign.abs().sum(1, keepdim=True).clamp_(min=1)
    return (sign * (run.step_size[:, None] / parts)).view_as(run.point)


def _compare(run: _Run, loss: Tensor) -> None:
    is_better = loss > run.best_loss
    run.best_loss = torch.where(is_better, loss, run.best_loss)
    is_better = is_better.view(-1, *[1] * (run.point.dim() - 1))
    run.best = torch.where(is_better, run.point, run.best)
    run.best_gradient = torch.where(is_better, run.gradient, run.best_gradient)


def _check(run: _Run, x: Tensor, step_size: float) -> None:
    pixels = _moved(run.best, x)
    are_fewer = pixels / run.pixels < 0.95
    shorter = (run.step_size / _SHRINK).clamp_(min=_LEAST_SIZE * step_size)
    run.step_size = torch.where(are_fewer, step_size, shorter)
    run.share, run.pixels = pixels / max(x[0].numel(), 1) / _SHRINK, pixels
    are_fewer = are_fewer.view(-1, *[1] * (x.dim() - 1))
    run.point = torch.where(are_fewer, run.best, run.point)
    run.gradient = torch.where(are_fewer, run.best_gradient, run.gradient)


def _moved(point: Tensor, x: Tensor) -> Tensor:
    """How many pixels differ. -> [B]"""
    return (point != x).flatten(1).sum(1).to(x.dtype)
