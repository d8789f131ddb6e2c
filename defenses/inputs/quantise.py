"""Fewer grey levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.surface import Surface


@dataclass(frozen=True)
class Quantise:
    """Each value becomes the nearest of 2^`bits` levels from 0 to 1 (bit depth reduction; Xu, Evans, Qi 2018, arXiv
    1704.01155). Its gradient is 0 everywhere, so the identity stands in for it.
    """

    name: ClassVar[str] = "quantise"
    bits: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise ValueError(f"bits: must be a whole number in 1..8, got {self.bits!r}")

    def __call__(self, channels: int, size: int) -> nn.Module:
        return _Levels(2**self.bits - 1)

    def surface(self) -> Surface:
        return Surface(backward=nn.Identity())


class _Levels(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * self.steps) / self.steps
