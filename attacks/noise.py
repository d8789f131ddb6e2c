"""Random points of the ball: what no attack worth its cost may lose to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.attack import check_count
from attacks.directions import random_start
from attacks.draws import Draws
from attacks.projections import project
from attacks.querying import Worst, querying
from attacks.threat import Threat


@dataclass(frozen=True)
class Noise:
    """Uniform random perturbations; the worst of `queries` per example is kept."""

    name: ClassVar[str] = "noise"
    queries: int = 10

    def __post_init__(self) -> None:
        check_count("queries", self.queries)

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        worst = Worst(x)
        with querying(model):
            for query in range(self.queries):
                adversarial = project(x, random_start(x, threat, draws.fork(self.name, query)), threat)
                worst.score(adversarial, model(adversarial), y)
        return worst.images
