"""A random step, then one along the gradient (Tramer, Kurakin, Papernot, Goodfellow, Boneh, McDaniel 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.checks import one_of
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.projections import project
from attacks.queries import querying
from attacks.steepest import steepest_step
from attacks.threat import Threat


@dataclass(frozen=True)
class RFGSM:
    """R+FGSM (arXiv 1705.07204): `random_share` of eps along random signs, the rest along the gradient there.

    It leaves the neighbourhood of the image, where a model trained on single steps may hide its gradient. The random
    step goes, in every norm, where the gradient's would if it were standard normal: signs for linf as in the paper, a
    random direction for l2, random pixels for l1. Raises ValueError for a share that is not within (0, 1).
    """

    name: ClassVar[str] = "rfgsm"
    random_share: float = 0.5
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        if not 0 < self.random_share < 1:
            raise ValueError(f"random_share: must be > 0 and < 1, got {self.random_share!r}")
        one_of("loss", self.loss, LOSSES)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        first = self.random_share * threat.eps
        direction = draws.fork("direction").normal(*x.shape[1:]).to(x.dtype)
        start = steepest_step(x, direction, threat.norm, first).clamp(0, 1)
        with querying(model) as queries:
            gradient, _ = queries.gradient(start, y, LOSSES[self.loss], draws)
        return project(x, steepest_step(start, gradient, threat.norm, threat.eps - first), threat)
