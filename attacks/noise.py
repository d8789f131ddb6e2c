"""Random noise: what chance alone finds, and the least that any other attack must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.checks import at_least
from attacks.draws import Draws
from attacks.queries import querying
from attacks.starts import random_point
from attacks.threat import Threat
from attacks.worst import Worst


@dataclass(frozen=True)
class Noise:
    """The worst, by margin, of `queries` random points in the ball. Asks for no gradient."""

    name: ClassVar[str] = "noise"
    queries: int = 10

    def __post_init__(self) -> None:
        at_least("queries", self.queries, 1)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device)
        worst = Worst(x, y)
        with querying(model) as queries:
            for query in range(self.queries):
                source = draws.fork(self.name, query)
                point = random_point(x, threat, source)
                worst.see(point, queries.logits(point, source))
        return worst.adversarial
