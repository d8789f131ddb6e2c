"""The basic iterative method (Kurakin, Goodfellow, Bengio 2017, arXiv 1607.02533)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.checks import at_least, one_of, positive
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.pgd import PGD
from attacks.threat import Threat


@dataclass(frozen=True)
class BIM:
    """`steps` steepest steps from the image itself, each projected back; the answer is the point where they end.

    `step_size` is in pixel units; None is 1.25 eps / steps, the paper's proportion (steps of 1 pixel value, 1.25 times
    as many as eps has). It is PGD without a random start, and keeps the last point as the paper does.
    """

    name: ClassVar[str] = "bim"
    steps: int = 10
    step_size: float | None = None
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        one_of("loss", self.loss, LOSSES)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        size = self.step_size or 1.25 * threat.eps / self.steps or None  # at eps 0 any will do
        pgd = PGD(self.steps, step_size=size, random_start=False, loss=self.loss, keep="last")
        return pgd(model, x, y, threat, draws.fork(self.name))
