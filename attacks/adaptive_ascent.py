"""One run of APGD in linf or l2: ascent with momentum whose step is halved where it stops paying."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attacks.losses import Loss
from attacks.projections import project
from attacks.queries import Queries
from attacks.steepest import unit
from attacks.survivors import Survivors
from attacks.threat import Threat

_MOMENTUM = 0.75  # share of the step; the rest is the step before
_IMPROVING = 0.75  # share of the steps between two checkpoints that must raise the loss


@dataclass
class _Run:
    """What the ascent knows of each row. In parallel tensors [B, ...]."""

    aim: Tensor  # class, or class and target, as the loss takes it
    point: Tensor
    before: Tensor  # the point before it
    gradient: Tensor
    best: Tensor  # where the loss was largest
    best_gradient: Tensor
    best_loss: Tensor
    loss: Tensor  # of the step before
    rises: Tensor  # steps since the last checkpoint that raised the loss
    loss_at_check: Tensor
    was_halved: Tensor
    step_size: Tensor

    def select(self, rows: Tensor) -> _Run:
        return _Run(*(getattr(self, field.name)[rows] for field in fields(self)))


def ascend(
    queries: Queries, survivors: Survivors, aim: Tensor, loss: Loss, start: Tensor, threat: Threat, steps: int
) -> None:
    """Show the survivors all points of a run of `steps` from `start`, which is one of theirs each.

    Steps begin at 2 eps. At checkpoints a row's step is halved, and the row put back to its best point, where fewer
    than three quarters of the steps since the last one raised its loss, or where nothing was gained since then at an
    unchanged step. As in the authors' code, the first step counts as a rise where it makes the loss positive.
    """
    gradient, logits = queries.gradient(start, aim, loss, survivors.draws.fork("step", 0))
    run, windows = _begin(start, aim, gradient, loss(logits, aim), 2 * threat.eps), checkpoints(steps)
    run = _stay(run, survivors.see(start, logits))
    for step in range(1, steps + 1):
        if not len(survivors):
            return
        _move(run, survivors.x, threat, has_momentum=step > 1)
        source = survivors.draws.fork("step", step)
        if step == steps:
            survivors.see(run.point, queries.logits(run.point, source))
            return
        run.gradient, logits = queries.gradient(run.point, run.aim, loss, source)
        _compare(run, loss(logits, run.aim))
        run = _stay(run, survivors.see(run.point, logits))
        if step in windows:
            _check(run, windows[step])


def checkpoints(steps: int) -> dict[int, int]:
    """The steps after which the step size is looked at, with the number of steps since the last such look.

    The first window is 0.22 of all steps; each is shorter by 0.03 of them, down to 0.06.
    """
    window, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, step = {}, window
    while step <= steps:
        found[step] = window
        window = max(window - less, least)
        step += window
    return found


def _begin(start: Tensor, aim: Tensor, gradient: Tensor, loss: Tensor, step_size: float) -> _Run:
    zeros, halved = torch.zeros_like(loss), torch.ones_like(loss, dtype=torch.bool)
    sizes = torch.full_like(loss, step_size, dtype=start.dtype)
    return _Run(aim, start, start, gradient, start, gradient, loss, zeros, zeros, loss, halved, sizes)


def _stay(run: _Run, staying: Tensor | None) -> _Run:
    return run if staying is None else run.select(staying)


def _move(run: _Run, x: Tensor, threat: Threat, has_momentum: bool) -> None:
    direction = run.gradient.sign() if threat.norm == "linf" else unit(run.gradient)
    ahead = project(x, torch.addcmul(run.point, direction, _by_row(run.step_size, x)), threat)
    if has_momentum:
        wish = torch.lerp(run.point, ahead, _MOMENTUM).add_(run.point - run.before, alpha=1 - _MOMENTUM)
        ahead = project(x, wish, threat)
    run.before, run.point = run.point, ahead


def _compare(run: _Run, loss: Tensor) -> None:
    run.rises = run.rises + (loss > run.loss)
    run.loss = loss
    is_better = loss > run.best_loss
    run.best_loss = torch.where(is_better, loss, run.best_loss)
    is_better = _by_row(is_better, run.point)
    run.best = torch.where(is_better, run.point, run.best)
    run.best_gradient = torch.where(is_better, run.gradient, run.best_gradient)


def _check(run: _Run, window: int) -> None:
    is_halved = (run.rises <= window * _IMPROVING) | (~run.was_halved & (run.loss_at_check >= run.best_loss))
    run.step_size = torch.where(is_halved, run.step_size / 2, run.step_size)
    run.was_halved, run.loss_at_check = is_halved, run.best_loss
    run.rises = torch.zeros_like(run.rises)
    is_halved = _by_row(is_halved, run.point)
    run.point = torch.where(is_halved, run.best, run.point)
    run.gradient = torch.where(is_halved, run.best_gradient, run.gradient)


def _by_row(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *[1] * (like.dim() - 1))
