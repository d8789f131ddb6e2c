"""Network in Network: small perceptrons slid over the image in place of single convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from torch import nn

from defenses.networks.initialise import initialise_convolutions
from defenses.networks.normalise import Normalise


@dataclass(frozen=True)
class Nin:
    """Three times a convolution and two 1x1 ones, the last of which gives a map per class; any image size.

    Lin, Chen, Yan 2014, arXiv 1312.4400, in the form for CIFAR-10: 966,986 parameters for 3 channels and 10 classes.
    `dropout` follows both poolings. Unlike in the first code there is no ReLU behind the last convolution, where it
    would cut logits, and with them gradients, off at 0; weights start with He's variance, since no layer normalises.
    Raises ValueError when dropout is not in [0, 1).
    """

    name: ClassVar[str] = "nin"
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: must be in [0, 1), got {self.dropout!r}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        perceptrons = chain(
            _perceptron(channels, (192, 160, 96), 5),
            (nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Dropout(self.dropout)),
            _perceptron(96, (192, 192, 192), 5),
            (nn.AvgPool2d(3, stride=2, ceil_mode=True), nn.Dropout(self.dropout)),
            _perceptron(192, (192, 192), 3),
        )
        last = (nn.Conv2d(192, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = nn.Sequential(Normalise(channels), *perceptrons, *last)
        initialise_convolutions(model)
        return model


def _perceptron(inputs: int, widths: tuple[int, ...], kernel: int) -> Iterator[nn.Module]:
    """One convolution of `kernel` pixels, then 1x1 ones, each followed by a ReLU; the map keeps its size."""
    for place, (wide, next_wide) in enumerate(zip((inputs, *widths), widths, strict=False)):
        yield nn.Conv2d(wide, next_wide, 1 if place else kernel, padding=0 if place else kernel // 2)
        yield nn.ReLU()
