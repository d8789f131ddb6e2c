"""What the attacker may do: how far, in which norm, an image may be moved."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.checks import one_of

NORMS = ("linf", "l2", "l1")


@dataclass(frozen=True)
class Threat:
    """A ball of radius `eps` in `norm` around each image, cut with the box [0, 1].

    `eps` is a fraction of the pixel range. Raises ValueError for an unknown norm or an eps that is
    negative or not finite.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        one_of("norm", self.norm, NORMS)
        if not math.isfinite(self.eps) or self.eps < 0:
            raise ValueError(f"eps: must be finite and >= 0, got {self.eps!r}")
        object.__setattr__(self, "eps", float(self.eps))  # 1 and 1.0 are one threat, with the same draws

    def scaled(self, factor: float) -> Threat:
        """The same norm at `factor` times the radius."""
        return replace(self, eps=self.eps * factor)

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """How far each image was moved, in this norm. [B, ...], [B, ...] -> [B]"""
        return length(adversarial - x, self.norm)

    def allows(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Which images are inside ball and box, up to float32 rounding. -> bool [B]

        A projection in float32 leaves up to about 3e-8 too much, hence the tolerance
        eps * (1 + 1e-6) + 1e-7; lengths are summed in float64 so that it holds for l1 and l2 too.
        An image with a NaN is not allowed.
        """
        flat = adversarial.flatten(1)
        in_box = (flat >= 0).all(1) & (flat <= 1).all(1)
        moved = self.distance(x.double(), adversarial.double())
        return in_box & (moved <= self.eps * (1 + 1e-6) + 1e-7)


def length(delta: Tensor, norm: str) -> Tensor:
    """The norm of each row. [B, ...] -> [B]"""
    order = {"linf": math.inf, "l2": 2.0, "l1": 1.0}[norm]
    size: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return size
