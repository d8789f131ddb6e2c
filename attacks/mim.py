"""The momentum iterative method (Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, arXiv 1710.06081)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.checks import at_least, one_of, positive
from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.projections import project
from attacks.queries import querying
from attacks.steepest import steepest_step
from attacks.threat import Threat


@dataclass(frozen=True)
class MIM:
    """MI-FGSM: steepest steps along the sum of all gradients so far, that before weighed by `decay` in each step.

    Each example's gradient is brought to l1 length 1 first, by itself. From the image, in `steps` steps; `step_size` is
    in pixel units, None is eps / steps as in the paper. The answer is the point where they end. Made to carry over to
    other models; against the model itself PGD is stronger. `decay: 0` is BIM.
    """

    name: ClassVar[str] = "mim"
    steps: int = 10
    decay: float = 1.0
    step_size: float | None = None
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise ValueError(f"decay: must be finite and >= 0, got {self.decay!r}")
        if self.step_size is not None:
            positive("step_size", self.step_size)
        one_of("loss", self.loss, LOSSES)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        size = self.step_size or threat.eps / self.steps
        point, momentum = x.clone(), torch.zeros_like(x)
        with querying(model) as queries:
            for step in range(self.steps):
                gradient, _ = queries.gradient(point, y, LOSSES[self.loss], draws.fork("step", step))
                momentum = self.decay * momentum + _of_unit_l1(gradient)
                point = project(x, steepest_step(point, momentum, threat.norm, size), threat)
        return point


def _of_unit_l1(gradient: Tensor) -> Tensor:
    """Each row at l1 length 1, also where its sum would leave float32; zero rows stay zero."""
    flat = gradient.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1)
    return (flat / flat.abs().sum(1, keepdim=True).clamp(min=1)).view_as(gradient)
