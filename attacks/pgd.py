"""Projected gradient ascent (Madry, Makelov, Schmidt, Tsipras, Vladu 2018, arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.checks import at_least, one_of, positive
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.projections import project
from attacks.queries import Queries, querying
from attacks.starts import random_point
from attacks.steepest import steepest_step
from attacks.threat import Threat
from attacks.worst import Worst

KEEPS = ("best", "last")


@dataclass(frozen=True)
class PGD:
    """`steps` steepest steps from a random point of the ball, each projected back, in `restarts` independent runs.

    `step_size` is in pixel units; None is 2.5 eps / steps, which can cross the ball. `keep: best` returns the worst
    point of a run by margin, the start and the last step included; `last` the point where it ended, as most papers
    do. The worst run counts, and an example fooled in one run is not attacked in the next.

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
                return self._climb(queries, x, y, threat, draws.fork(self.name, 0), None)
            worst = self._run(queries, x, y, threat, draws.fork(self.name, 0))
            for restart in range(1, self.restarts):
                rows = (~worst.is_fooled).nonzero().flatten()
                if not len(rows):
                    break
                source = draws.select(rows).fork(self.name, restart)
                worst.absorb(rows, self._run(queries, x[rows], y[rows], threat, source))
        return worst.adversarial

    def _run(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Worst:
        worst = Worst(x, y)
        last = self._climb(queries, x, y, threat, draws, worst if self.keep == "best" else None)
        worst.see(last, queries.logits(last, draws.fork("step", self.steps)))
        return worst

    def _climb(
        self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws, worst: Worst | None
    ) -> Tensor:
        """The point after the last step; `worst` is shown all points before it."""
        size = self.step_size or 2.5 * threat.eps / self.steps
        point = random_point(x, threat, draws.fork("start")) if self.random_start else x
        for step in range(self.steps):
            gradient, logits = queries.gradient(point, y, LOSSES[self.loss], draws.fork("step", step))
            if worst is not None:
                worst.see(point, logits)
            point = project(x, steepest_step(point, gradient, threat.norm, size), threat)
        return point
