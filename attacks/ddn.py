"""The least l2 distance: gradient steps on a sphere that shrinks and grows (Rony et al. 2019, arXiv 1811.09600)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.checks import at_least, positive
from attacks.draws import Draws
from attacks.losses import cross_entropy
from attacks.nearest import Nearest, check_norm
from attacks.queries import querying
from attacks.steepest import steepest_step
from attacks.threat import Threat, length

_FIRST_STEP, _LAST_STEP = 1.0, 0.01


@dataclass(frozen=True)
class DDN:
    """DDN (Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019): the least l2 distance, by cross-entropy.

    In each of `steps` steps the perturbation goes along the gradient, and is then brought to a radius, which is
    `shrink` smaller than before where the point fooled, as much larger where it did not. Step lengths fall from 1 to
    0.01 along a cosine, as in the paper; `radius` is where it begins. Where the gradient is 0 the step is random.
    Images are not rounded to 8 bits, which the paper's are, and the point after the last step is looked at too.

    Within a threat: see `attacks/nearest.py`.
    """

    name: ClassVar[str] = "ddn"
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    steps: int = 100
    radius: float = 1.0
    shrink: float = 0.05

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        positive("radius", self.radius)
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink: must be > 0 and < 1, got {self.shrink!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return self.nearest(model, x, y, threat.norm, draws).within(threat)

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, norm: str, draws: Draws) -> Nearest:
        """The nearest point that fools of those on the way, for each example."""
        check_norm(self.name, norm, self.norms)
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        nearest, point = Nearest(x, y, norm), x
        radius = torch.full((len(x),), self.radius, dtype=x.dtype, device=x.device)
        furthest = length(torch.maximum(x, 1 - x), norm)  # to the corner of the box
        with querying(model) as queries:
            for step in range(self.steps):
                gradient, logits = queries.gradient(point, y, cross_entropy, draws.fork("step", step))
                is_fooled = nearest.see(point, logits)
                gradient = _nowhere_zero(gradient, draws.fork("direction", step))
                move = steepest_step(point - x, gradient, norm, cosine(_FIRST_STEP, _LAST_STEP, step, self.steps))
                radius = (radius * torch.where(is_fooled, 1 - self.shrink, 1 + self.shrink)).minimum(furthest)
                scale = radius / length(move, norm).clamp(min=1e-12)
                point = (x + move * scale.view(-1, *[1] * (x.dim() - 1))).clamp_(0, 1)
            nearest.see(point, queries.logits(point, draws.fork("step", self.steps)))
        return nearest


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """From `first` at step 0 down to `last` at `steps`, along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def _nowhere_zero(gradient: Tensor, draws: Draws) -> Tensor:
    """The gradient, and where a row of it is 0 a random direction."""
    is_zero = (gradient == 0).flatten(1).all(1)
    if not is_zero.any():
        return gradient
    rows = is_zero.nonzero().flatten()
    return gradient.index_copy(0, rows, draws.select(rows).normal(*gradient.shape[1:]).to(gradient.dtype))
