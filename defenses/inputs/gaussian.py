"""Gaussian noise on the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.surface import Surface
from defenses.inputs.stochastic import Stochastic

EOT_DRAWS = 20


@dataclass(frozen=True)
class Gaussian:
    """Adds noise of deviation `std`, a fraction of the pixel range, and cuts at black and white."""

    name: ClassVar[str] = "gaussian"
    std: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"std: must be finite and > 0, got {self.std!r}")

    def __call__(self, channels: int, size: int) -> nn.Module:
        return _Noise(self.std)

    def surface(self) -> Surface:
        return Surface(draws=EOT_DRAWS)


class _Noise(Stochastic):
    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        noise = self.source(x).normal(*x.shape[1:]).to(x.dtype)
        return (x + self.std * noise).clamp(0, 1)
