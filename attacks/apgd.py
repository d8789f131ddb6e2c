"""Auto-PGD: gradient ascent that finds its own step size (Croce, Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.adaptive_ascent import ascend
from attacks.checks import at_least, one_of
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.queries import Queries, querying
from attacks.sparse_ascent import ascend_sparsely
from attacks.starts import surface_point
from attacks.survivors import Survivors, filled
from attacks.targets import aimed, likeliest_targets, targeted_dlr, targeted_margin
from attacks.threat import Threat
from attacks.worst import Worst

_TARGETED = {"dlr": targeted_dlr, "margin": targeted_margin}


@dataclass(frozen=True)
class APGD:
    """`steps` steps of the size that pays, from a random point of the ball's surface, in `restarts` independent runs.

    By default it is one run, and five in l1 where it is untargeted, as its authors have it in AutoAttack.
    With `targets` above 0, one run after the other aims at each of the so many likeliest wrong classes, by the targeted
    form of `loss` (dlr or margin). An example that is fooled is not attacked any further; of the others the worst
    point by margin is given. In l1 it is the sparse form of Croce, Hein 2021 (arXiv 2103.01208), whose last 40 % of
    steps are the ones inside the ball.

    Raises ValueError for settings out of range, and for loss dlr below three classes; targeted, dlr becomes the margin
    there.
    """

    name: ClassVar[str] = "apgd"
    steps: int = 100
    restarts: int | None = None
    loss: str = "cross_entropy"
    targets: int = 0

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        if self.restarts is not None:
            at_least("restarts", self.restarts, 1)
        at_least("targets", self.targets, 0)
        one_of("loss", self.loss, _TARGETED if self.targets else LOSSES)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        worst = Worst(x, y)
        with querying(model) as queries:
            for restart, aim in self._runs(queries, x, y, threat, draws):
                rows = filled((~worst.is_fooled).nonzero().flatten())
                if not len(rows):
                    break
                source = draws.select(rows).fork(restart)
                worst.absorb(rows, self._run(queries, x[rows], y[rows], aim[rows], threat, source))
        return worst.adversarial

    def _runs(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> list[tuple[int, Tensor]]:
        """The number of each run, and what it aims at, as its loss takes it."""
        if not self.targets or not len(x):
            return list(enumerate([y] * (self.restarts or (5 if threat.norm == "l1" else 1))))
        everyone = filled(torch.arange(len(x), device=x.device))
        logits = queries.logits(x[everyone], draws.select(everyone).fork("targets"))[: len(x)]
        targets = likeliest_targets(logits, y, self.targets)
        return list(enumerate(aimed(y, target) for target in targets.unbind(1) for _ in range(self.restarts or 1)))

    def _run(self, queries: Queries, x: Tensor, y: Tensor, aim: Tensor, threat: Threat, draws: Draws) -> Worst:
        survivors = Survivors(queries, x, y, draws)
        start = surface_point(x, threat, draws.fork("start"))
        run = ascend_sparsely if threat.norm == "l1" else ascend
        loss = _TARGETED[self.loss] if self.targets else LOSSES[self.loss]
        run(queries, survivors, aim, loss, start, threat, self.steps)
        return survivors.worst()
