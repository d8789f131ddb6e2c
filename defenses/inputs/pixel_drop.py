"""Pixels at random places become black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from attacks.surface import Surface
from defenses.inputs.stochastic import Stochastic

EOT_DRAWS = 20


@dataclass(frozen=True)
class PixelDrop:
    """Each pixel is dropped, in all its channels, with probability `share`."""

    name: ClassVar[str] = "pixel_drop"
    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: must be in (0, 1), got {self.share!r}")

    def __call__(self, channels: int, size: int) -> nn.Module:
        return _Drop(self.share)

    def surface(self) -> Surface:
        return Surface(draws=EOT_DRAWS)


class _Drop(Stochastic):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        is_kept = self.source(x).uniform(1, *x.shape[2:]) >= self.share  # [B, 1, H, W]
        return x * is_kept.to(x.dtype)
