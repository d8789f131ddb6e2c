"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.attack import check_choice, check_count
from attacks.directions import random_start, steepest
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.projections import project
from attacks.querying import Worst, ascent, querying
from attacks.threat import Threat


@dataclass(frozen=True)
class PGD:
    """Steps up the loss, each brought back into ball and box (Madry et al. 2018, arXiv 1706.06083).

    `step_size` is a length in the threat's norm, 2.5 eps / steps where None. `keep` "best" gives the image at which
    the model was furthest wrong, of all steps and restarts, the last step scored too; "last" only looks at the last
    step of each restart. An example that a restart fooled is not attacked by the next ones.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 10
    restarts: int = 1
    step_size: float | None = None
    loss: str = "cross_entropy"
    random_start: bool = True
    keep: str = "best"

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        check_choice("loss", self.loss, tuple(LOSSES))
        check_choice("keep", self.keep, ("best", "last"))
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size: must be > 0, got {self.step_size!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        images, scores = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
        with querying(model):
            for restart in range(self.restarts):
                alive = (scores <= 0).nonzero().flatten()
                if not len(alive):
                    break
                worst = self._climb(model, x[alive], y[alive], threat, draws.select(alive).fork(self.name, restart))
                is_worse = worst.scores > scores[alive]
                images[alive[is_worse]] = worst.images[is_worse]
                scores[alive] = torch.maximum(scores[alive], worst.scores)
        return images

    def _climb(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Worst:
        """One restart, from its start to its last step."""
        step_size = 2.5 * threat.eps / self.steps if self.step_size is None else self.step_size
        worst, adversarial = Worst(x), x
        if self.random_start:
            adversarial = project(x, random_start(x, threat, draws), threat)
        for _ in range(self.steps):
            gradient, logits = ascent(model, adversarial, y, LOSSES[self.loss])
            if self.keep == "best":
                worst.score(adversarial, logits, y)
            adversarial = project(x, adversarial + step_size * steepest(gradient, adversarial, threat.norm), threat)
        with torch.no_grad():
            worst.score(adversarial, model(adversarial), y)
        return worst
