"""The nearest boundary, found as if the model were linear, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.boundary_step import boundary_step
from attacks.checks import at_least
from attacks.draws import Draws
from attacks.nearest import Nearest, check_norm
from attacks.queries import querying
from attacks.threat import Threat

_BEYOND = 1e-4


@dataclass(frozen=True)
class DeepFool:
    """Steps to the nearest linearised boundary, until the image is misclassified.

    Moosavi-Dezfooli, Fawzi, Frossard 2016, arXiv 1511.04599. The boundaries are those to the `classes` classes next in
    the logits of the image; the sum of the steps is gone (1 + `overshoot`) times as far. As in the authors' code each
    step ends 1e-4 beyond its boundary: pixels that the walls of the box hold back would let it come ever nearer without
    a crossing. For l2 and linf. Quick, and further from the least distance than `ddn` or `fmn`.

    Within a threat: see `attacks/nearest.py`.

    An example that is fooled leaves the batch.
    """

    name: ClassVar[str] = "deepfool"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    steps: int = 50
    classes: int = 9
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("classes", self.classes, 1)
        if not (math.isfinite(self.overshoot) and self.overshoot >= 0):
            raise ValueError(f"overshoot: must be finite and >= 0, got {self.overshoot!r}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return self.nearest(model, x, y, threat.norm, draws).within(threat)

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, norm: str, draws: Draws) -> Nearest:
        """The first point found beyond a boundary, for each example."""
        check_norm(self.name, norm, self.norms)
        x, draws = x.detach(), draws.to(x.device).fork(self.name)
        nearest, total = Nearest(x, y, norm), torch.zeros_like(x)
        with querying(model) as queries:
            logits = queries.logits(x, draws.fork("step", 0))
            others = _next_classes(logits, y, self.classes)  # [B, M]
            rows = (~nearest.see(x, logits)).nonzero().flatten()
            for step in range(1, self.steps + 1):
                if not len(rows) or not others.shape[1]:
                    break
                gaps, slopes, _ = queries.slopes(
                    _at(x, total, self.overshoot, rows),
                    _gaps(others[rows], y[rows]),
                    draws.select(rows).fork("slope", step),
                )
                total[rows] += boundary_step(gaps, slopes, norm, _BEYOND)
                point = _at(x, total, self.overshoot, rows)
                logits = queries.logits(point, draws.select(rows).fork("step", step))
                rows = rows[~nearest.see(point, logits, rows)]
        return nearest


def _at(x: Tensor, total: Tensor, overshoot: float, rows: Tensor) -> Tensor:
    return torch.add(x[rows], total[rows], alpha=1 + overshoot).clamp_(0, 1)


def _next_classes(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The other classes with the largest logits. [B, K], [B] -> [B, min(count, K - 1)]"""
    others = logits.nan_to_num().scatter(1, y[:, None], -math.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def _gaps(others: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Of logits, how far each of the `others` is above the true one. [B, M], [B] -> ([B, K] -> [B, M])"""
    return lambda logits: logits.gather(1, others) - logits.gather(1, y[:, None])
