"""The nearest point that fools, for each example apart, and what a minimum-norm attack answers within a threat."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks.checks import one_of
from attacks.projections import project
from attacks.threat import Threat, length


class Nearest:
    """Of the points shown to it, per example, the one that fools and lies nearest to the image `x`, in `norm`.

    Before one that fools was seen, `adversarial` is the image and `distance` infinite. An image that is misclassified
    as it is has distance 0. Fooling is what `argmax` says; logits that are not finite fool nobody.
    """

    def __init__(self, x: Tensor, y: Tensor, norm: str) -> None:
        self.x, self.y, self.norm = x, y, norm
        self.adversarial = x.clone()  # [B, C, H, W]
        self.distance = torch.full((len(x),), math.inf, device=x.device, dtype=x.dtype)

    def see(self, point: Tensor, logits: Tensor, rows: Tensor | None = None) -> Tensor:
        """Keep what is nearer than what was seen before; says which points fool. [B, C, H, W], [B, K] -> bool [B]

        `rows` are the positions of the examples that the points are of, where they are not all.
        """
        at = torch.arange(len(self.x), device=self.x.device) if rows is None else rows
        is_fooled = (logits.argmax(1) != self.y[at]) & logits.isfinite().all(1)
        distance = length(point - self.x[at], self.norm)
        is_nearer = is_fooled & (distance < self.distance[at])
        at, point = at[is_nearer], point[is_nearer]
        self.adversarial = self.adversarial.index_copy(0, at, point)
        self.distance = self.distance.index_copy(0, at, distance[is_nearer])
        return is_fooled

    def within(self, threat: Threat) -> Tensor:
        """The nearest point where it lies in the ball, else the point of the ball on the way to it. -> [B, C, H, W]"""
        return project(self.x, self.adversarial, threat)


def check_norm(attack: str, norm: str, norms: tuple[str, ...]) -> None:
    """Raises ValueError where an attack is not made for the norm of the threat."""
    one_of(f"{attack} under a threat's norm", norm, norms)
