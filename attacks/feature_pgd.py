"""Projected gradient ascent that follows what hidden features say of the class."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.pgd import PGD
from attacks.threat import Threat

GUIDE = "feature_guide"


@dataclass(frozen=True)
class FeaturePGD:
    """PGD with the gradient of the model's `feature_guide`; where there is none, of the model itself, as `pgd`.

    A defense that shapes hidden features puts such a guide beside the model it deploys: a module, images -> scores
    [B, K], which shares the model's layers. That of pcl gives minus the distances of the features to the prototypes, so
    that raising the margin pulls an image's features away from the prototype of its class to that of the class which is
    next. The losses, and which point of a run is the worst, still go by the model's logits: the guide stands in in the
    backward pass alone (as in BPDA; Athalye, Carlini, Wagner 2018, arXiv 1802.00420). Settings are those of `pgd`.
    """

    name: ClassVar[str] = "feature_pgd"
    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True
    loss: str = "margin"

    def __post_init__(self) -> None:
        self._pgd()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        guide = getattr(model, GUIDE, None)
        followed = model if guide is None else _Following(model, guide)
        return self._pgd()(followed, x, y, threat, draws.fork(self.name))

    def _pgd(self) -> PGD:
        return PGD(**asdict(self))


class _Following(nn.Module):
    """The logits of a model with the gradient of its guide."""

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.model, self.guide = model, guide

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        with torch.no_grad():
            logits: Tensor = self.model(x)
        if not torch.is_grad_enabled():
            return logits
        scores: Tensor = self.guide(x)
        return logits + (scores - scores.detach())
