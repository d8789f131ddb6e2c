"""The least distance: gradient steps within a ball that closes in (Pintor et al. 2021, arXiv 2102.12827)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.checks import at_least, positive
from attacks.ddn import cosine
from attacks.draws import Draws
from attacks.losses import margin
from attacks.nearest import Nearest, check_norm
from attacks.projections import project_each
from attacks.queries import querying
from attacks.steepest import steepest_step
from attacks.threat import Threat, length

_DUAL = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}
_LEAST_SLOPE = 1e-12


@dataclass(frozen=True)
class FMN:
    """FMN (Pintor, Roli, Brendel, Biggio 2021): the least distance in linf, l2 or l1, by the margin.

    In each of `steps` steps the point goes along the gradient of the margin, by an l2 length that falls from
    `step_size` to a hundredth of it, and is then projected on a ball. Until a point has fooled, the ball reaches to
    where the margin would be 0 if it were linear. From then on it is smaller by a share after a point that fools, and
    never larger than the nearest so far, larger by a share after one that does not. The share falls from `shrink` to a
    fiftieth of it. Both fall along a cosine, as in the paper.

    Ours differs in two ways. The ball is larger by a share before a point has fooled, too, and never shrinks then: the
    paper's reaches to the boundary at most, and not even there where pixels at the walls of the box cannot follow their
    gradient, so that some images are never fooled. And the point after the last step is looked at.

    Within a threat: see `attacks/nearest.py`.
    """

    name: ClassVar[str] = "fmn"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    steps: int = 100
    step_size: float = 1.0
    shrink: float = 0.05

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        positive("step_size", self.step_size)
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink: must be > 0 and < 1, got {self.shrink!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return self.nearest(model, x, y, threat.norm, draws).within(threat)

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, norm: str, draws: Draws) -> Nearest:
        """The nearest point that fools of those on the way, for each example."""
        check_norm(self.name, norm, self.norms)
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        nearest, point = Nearest(x, y, norm), x
        radius = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        with querying(model) as queries:
            for step in range(self.steps):
                gradient, logits = queries.gradient(point, y, margin, draws.fork("step", step))
                is_fooled = nearest.see(point, logits)
                share = cosine(self.shrink, self.shrink / 50, step, self.steps)
                beyond = length(point - x, norm) + _to_boundary(margin(logits, y), gradient, norm)
                reach = torch.where(nearest.distance.isfinite(), radius, beyond.maximum(radius))
                smaller = torch.minimum(radius * (1 - share), nearest.distance)
                radius = torch.where(is_fooled, smaller, reach * (1 + share))
                size = cosine(self.step_size, self.step_size / 100, step, self.steps)
                point = project_each(x, steepest_step(point, gradient, "l2", size), norm, radius)
            nearest.see(point, queries.logits(point, draws.fork("step", self.steps)))
        return nearest


def _to_boundary(gap: Tensor, gradient: Tensor, norm: str) -> Tensor:
    """How far away the margin would be 0 if it were linear. [B], [B, ...] -> [B]"""
    steepness: Tensor = torch.linalg.vector_norm(gradient.flatten(1), ord=_DUAL[norm], dim=1)
    return gap.abs() / steepness.clamp(min=_LEAST_SLOPE)
