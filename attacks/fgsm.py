"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.attack import check_choice
from attacks.directions import steepest
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.projections import project
from attacks.querying import ascent, querying
from attacks.threat import Threat


@dataclass(frozen=True)
class FGSM:
    """One step of length eps along the steepest direction of the norm (Goodfellow et al. 2015, arXiv 1412.6572)."""

    name: ClassVar[str] = "fgsm"
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, tuple(LOSSES))

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        with querying(model):
            gradient, _ = ascent(model, x, y, LOSSES[self.loss])
        return project(x, x + threat.eps * steepest(gradient, x, threat.norm), threat)
