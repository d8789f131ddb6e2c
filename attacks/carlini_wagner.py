"""The least l2 distance by a penalty, in a space without walls (Carlini, Wagner 2017, arXiv 1608.04644)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.adam import Adam
from attacks.checks import at_least, positive
from attacks.draws import Draws
from attacks.losses import margin
from attacks.nearest import Nearest, check_norm
from attacks.queries import Queries, querying
from attacks.threat import Threat

_WITHIN_WALLS = 1 - 1e-4  # a pixel of exactly 0 or 1 begins 5e-5 from it, where tanh has a slope
_PROGRESS = 0.9999  # of the objective in a tenth of the steps, without which an example is given up


@dataclass(frozen=True)
class CarliniWagner:
    """C&W for l2: Adam on |x' - x|^2 + c max(margin + confidence, 0), where x' = (tanh(w) + 1) / 2.

    `searches` runs of up to `steps` steps look for the least c that will do, for each example apart: ten times as large
    while none did, then halfway between the largest that failed and the least that did. With
    `early_abort` an example whose objective does not fall in a tenth of the steps leaves the batch, which in the
    paper's code the whole batch does or none. 10,000 steps are the paper's; far fewer find nearly as near points.
    Pixels of 0 and 1 begin 5e-5 within the box; the authors' 5e-7 takes 230 steps more to move them, in the
    first of which nothing seems to happen and an abort comes too early. The nearest point of all runs counts, also
    where the margin beyond `confidence` was not reached.

    Within a threat: see `attacks/nearest.py`.
    """

    name: ClassVar[str] = "carlini_wagner"
    norms: ClassVar[tuple[str, ...]] = ("l2",)
    steps: int = 1000
    searches: int = 9
    learning_rate: float = 0.01
    initial_c: float = 1e-3
    confidence: float = 0.0
    early_abort: bool = True

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("searches", self.searches, 1)
        positive("learning_rate", self.learning_rate)
        positive("initial_c", self.initial_c)
        if not (math.isfinite(self.confidence) and self.confidence >= 0):
            raise ValueError(f"confidence: must be finite and >= 0, got {self.confidence!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return self.nearest(model, x, y, threat.norm, draws).within(threat)

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, norm: str, draws: Draws) -> Nearest:
        """The nearest point that fools of those in all runs, for each example."""
        check_norm(self.name, norm, self.norms)
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        nearest = Nearest(x, y, norm)
        c = torch.full((len(x),), self.initial_c, dtype=x.dtype, device=x.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        with querying(model) as queries:
            is_right = ~nearest.see(x, queries.logits(x, draws.fork("image")))
            for search in range(self.searches):
                did = self._run(queries, nearest, is_right.nonzero().flatten(), c, draws.fork("search", search))
                high, low = torch.where(did, high.minimum(c), high), torch.where(did, low, low.maximum(c))
                c = torch.where(high.isfinite(), (low + high) / 2, c * 10)
        return nearest

    def _run(self, queries: Queries, nearest: Nearest, rows: Tensor, c: Tensor, draws: Draws) -> Tensor:
        """Minimise at these `c`, for the examples at `rows`, showing `nearest` every point. -> bool [B]: found one"""
        did = torch.zeros_like(c, dtype=torch.bool)
        x, w = nearest.x[rows], torch.atanh((2 * nearest.x[rows] - 1) * _WITHIN_WALLS)
        adam, before = Adam(w, self.learning_rate), torch.full_like(c, torch.inf)[rows]
        for step in range(self.steps):
            if not len(rows):
                break
            point = (torch.tanh(w) + 1) / 2
            source = draws.select(rows).fork("step", step)
            gradient, logits = queries.gradient(point, nearest.y[rows], margin, source)
            is_fooled, gap = nearest.see(point, logits, rows), margin(logits, nearest.y[rows])
            did[rows] |= is_fooled & (gap >= self.confidence)
            short = (self.confidence - gap).clamp(min=0)
            downhill = 2 * (point - x) - _as_images(c[rows] * (short > 0), x) * gradient
            w = adam.moved(w, downhill * 2 * point * (1 - point))  # the slope of x' in w, (1 - tanh(w)^2) / 2
            if self.early_abort and step % max(self.steps // 10, 1) == 0:
                objective = (point - x).flatten(1).square().sum(1) + c[rows] * short
                goes_on = objective <= _PROGRESS * before
                rows, x, w, before = rows[goes_on], x[goes_on], w[goes_on], objective[goes_on]
                adam.keep(goes_on)
        return did


def _as_images(numbers: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ...]"""
    return numbers.view(-1, *[1] * (like.dim() - 1))
