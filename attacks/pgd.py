"""Projected gradient ascent (Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.checks import at_least, one_of, positive
from attacks.cycles import Cycles
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.projections import project
from attacks.queries import Queries, querying
from attacks.starts import random_point
from attacks.steepest import steepest_step
from attacks.survivors import LEAST_ROWS, Survivors, filled
from attacks.threat import Threat
from attacks.worst import Worst

KEEPS = ("best", "last")
_STEPS_TO_CYCLE = 20  # fewer do not come back often enough to pay for the look; nor do those of l2 and l1


@dataclass(frozen=True)
class PGD:
    """`steps` steepest steps from a random point of the ball, each projected back, in `restarts` independent runs.

    `step_size` is in pixel units; None is 2.5 eps / steps, which can cross the ball. `keep: best` returns the
    first point of a run that fools, else the worst by margin, the start and the last step included; `last` the point
    where it ended, as most papers do. Who is fooled is not attacked any further, and in linf a path that comes back to
    a point where it was is not followed again: it has nothing new to show. The worst run counts.

    Raises ValueError for settings out of range, or restarts without a random start, which would all be equal.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 10
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True
    loss: str = "cross_entropy"
    keep: str = "best"

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("restarts", self.restarts, 1)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        one_of("loss", self.loss, LOSSES)
        one_of("keep", self.keep, KEEPS)
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts: {self.restarts} without random_start would all be equal; allowed is 1")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device)
        with querying(model) as queries:
            if self.keep == "last" and self.restarts == 1:  # nothing to choose from: no need to score it
                return self._last(queries, x, y, threat, draws.fork(self.name, 0))
            worst = Worst(x, y)
            for restart in range(self.restarts):
                rows = (~worst.is_fooled).nonzero().flatten()
                rows = filled(rows) if len(x) >= LEAST_ROWS else rows
                if not len(rows):
                    break
                source = draws.select(rows).fork(self.name, restart)
                run = self._best_run if self.keep == "best" else self._last_run
                worst.absorb(rows, run(queries, x[rows], y[rows], threat, source))
        return worst.adversarial

    def _last_run(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Worst:
        worst = Worst(x, y)
        last = self._last(queries, x, y, threat, draws)
        worst.see(last, queries.logits(last, draws.fork("step", self.steps)))
        return worst

    def _last(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        """The point after the last step."""
        point = self._start(x, threat, draws)
        for step in range(self.steps):
            gradient, _ = queries.gradient(point, y, LOSSES[self.loss], draws.fork("step", step))
            point = self._next(x, point, gradient, threat)
        return point

    def _best_run(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Worst:
        survivors = Survivors(queries, x, y, draws)
        point = self._start(x, threat, draws)
        may_cycle = threat.norm == "linf" and survivors.may_leave and self.steps >= _STEPS_TO_CYCLE
        cycles = Cycles(x) if may_cycle else None
        for step in range(self.steps):
            if not len(survivors):
                return survivors.worst()
            source = survivors.draws.fork("step", step)
            gradient, logits = queries.gradient(point, survivors.y, LOSSES[self.loss], source)
            staying = survivors.see(point, logits)
            if staying is not None:
                point, gradient = point[staying], gradient[staying]
            point = self._next(survivors.x, point, gradient, threat)
            point = _onward(survivors, point, staying, cycles)
        if len(survivors):
            survivors.see(point, queries.logits(point, survivors.draws.fork("step", self.steps)))
        return survivors.worst()

    def _start(self, x: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return random_point(x, threat, draws.fork("start")) if self.random_start else x

    def _next(self, x: Tensor, point: Tensor, gradient: Tensor, threat: Threat) -> Tensor:
        size = self.step_size or 2.5 * threat.eps / self.steps
        return project(x, steepest_step(point, gradient, threat.norm, size), threat)


def _onward(survivors: Survivors, point: Tensor, staying: Tensor | None, cycles: Cycles | None) -> Tensor:
    """The points of those whose path leads to a new one; the others are dismissed."""
    if cycles is None:
        return point
    if staying is not None:
        cycles.select(staying)
    new = survivors.dismiss(cycles.is_back(point))
    if new is None:
        return point
    cycles.select(new)
    return point[new]
