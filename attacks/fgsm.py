"""One step along the gradient (Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572)."""

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
class FGSM:
    """A step of length eps in the steepest direction of the threat's norm.

    The paper's sign of the gradient for linf, the gradient at length eps for l2, the steepest pixels for l1. Weak on
    purpose: a model on which it beats PGD hides its gradients.
    """

    name: ClassVar[str] = "fgsm"
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        one_of("loss", self.loss, LOSSES)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device)
        with querying(model) as queries:
            gradient, _ = queries.gradient(x, y, LOSSES[self.loss], draws.fork(self.name))
        return project(x, steepest_step(x, gradient, threat.norm, threat.eps), threat)
