"""Fast Adaptive Boundary: the nearest misclassified point (Croce, Hein 2020, arXiv 1907.02044)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.checks import a_share, at_least
from attacks.draws import Draws
from attacks.fab_walk import Values, other_margins, target_margin, walk
from attacks.queries import Queries
from attacks.sampling import attack_a_share
from attacks.starts import surface_point
from attacks.survivors import Survivors, filled
from attacks.targets import likeliest_targets
from attacks.threat import Threat
from attacks.worst import Worst


@dataclass(frozen=True)
class FAB:
    """Steps on the linearised decision boundary, and back towards the image from behind it, in `restarts` runs.

    The first run starts at the image, the others within half of eps around it. With `targets` above 0 (FAB-T), one run
    after the other looks for the boundary with each of the so many likeliest wrong classes, at one gradient a step, not
    one for each class. An example leaves with the first misclassified point inside the threat; without one, the nearest
    point found is brought back into the ball. `share` below 1 attacks only so large a part of the examples, chosen by
    their ids, and gives the others back as they are.
    """

    name: ClassVar[str] = "fab"
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("restarts", self.restarts, 1)
        at_least("targets", self.targets, 0)
        a_share("share", self.share)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device)

        def attack(queries: Queries, rows: Tensor, known: Draws) -> Tensor:
            return self._attacked(queries, x[rows], y[rows], threat, known.fork(self.name))

        return attack_a_share(model, x, self.share, draws, attack)

    def _attacked(self, queries: Queries, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        worst = Worst(x, y)
        if not self._has_boundaries(queries, x, draws):
            return worst.adversarial
        aims, values = self._aims(queries, x, y, draws)
        for number, aim in enumerate(aims):
            rows = filled((~worst.is_fooled).nonzero().flatten())
            if not len(rows):
                break
            survivors = Survivors(queries, x[rows], y[rows], draws.select(rows).fork(number))
            start = survivors.x
            if number % self.restarts:
                start = surface_point(start, threat.scaled(0.5), survivors.draws.fork("start"))
            walk(queries, survivors, aim[rows], values, start, threat, self.steps)
            worst.absorb(rows, survivors.worst())
        return worst.adversarial

    def _has_boundaries(self, queries: Queries, x: Tensor, draws: Draws) -> bool:
        """Whether there is another class to go to."""
        classes: int = queries.logits(x[:1], draws.select(torch.arange(1, device=x.device)).fork("classes")).shape[1]
        return classes > 1

    def _aims(self, queries: Queries, x: Tensor, y: Tensor, draws: Draws) -> tuple[list[Tensor], Values]:
        """What each run looks for, and how far it is from there."""
        if not self.targets:
            return [y] * self.restarts, other_margins
        targets = likeliest_targets(queries.logits(x, draws.fork("targets")), y, self.targets)
        aims = [torch.stack([y, target], 1) for target in targets.unbind(1)]
        return [aim for aim in aims for _ in range(self.restarts)], target_margin
