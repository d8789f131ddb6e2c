"""A multilayer perceptron on the pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import nn

from defenses.networks.normalise import Normalise


@dataclass(frozen=True)
class Mlp:
    """Hidden layers of `widths` units with ReLU; any image size.

    The default is the MNIST network of Deep Defense (Yan, Guo, Zhang 2018, arXiv 1803.00404):
    784-500-150-10, 469,160 parameters. Raises ValueError unless every width is an integer >= 1.
    """

    name: ClassVar[str] = "mlp"
    widths: Sequence[int] = (500, 150)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if not all(isinstance(width, int) and width >= 1 for width in self.widths):
            raise ValueError(f"widths: must be a list of integers >= 1, got {list(self.widths)!r}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        body = self._hidden(channels * size * size)
        last = self.widths[-1] if self.widths else channels * size * size
        return nn.Sequential(Normalise(channels), nn.Flatten(), *body, nn.Linear(last, classes))

    def _hidden(self, inputs: int) -> Iterator[nn.Module]:
        for wide, next_wide in pairwise((inputs, *self.widths)):
            yield nn.Linear(wide, next_wide)
            yield nn.ReLU()
