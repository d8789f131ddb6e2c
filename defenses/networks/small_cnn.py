"""The small MNIST network of adversarial papers: four convolutions, two hidden layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.normalise import Normalise

_SMALLEST = 16  # below, four 3x3 convolutions without padding and two poolings leave no pixel


@dataclass(frozen=True)
class SmallCnn:
    """conv 32 - conv 32 - pool - conv 64 - conv 64 - pool - fc 200 - fc 200 - fc; any image size.

    The MNIST network of Carlini, Wagner 2017 (arXiv 1608.04644) and, with `dropout: 0.5`, of TRADES (arXiv 1901.08573);
    WNLL (arXiv 1809.08516) has its convolutions too. 312,202 parameters on 28x28x1 and 10 classes. ReLU follows all
    but the last layer, `dropout` the first hidden one. Images below 16 pixels get a border of zeros, after
    normalisation the mean grey, up to that size.
    Raises ValueError unless the hidden widths are integers >= 1 and dropout is in [0, 1).
    """

    name: ClassVar[str] = "small_cnn"
    hidden: Sequence[int] = (200, 200)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if not all(isinstance(width, int) and width >= 1 for width in self.hidden):
            raise ValueError(f"hidden: must be a list of integers >= 1, got {list(self.hidden)!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: must be in [0, 1), got {self.dropout!r}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        missing = max(0, _SMALLEST - size)
        pixels = ((size + missing - 4) // 2 - 4) // 2
        return nn.Sequential(
            Normalise(channels),
            nn.ZeroPad2d((missing // 2, missing - missing // 2) * 2),
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            *self._head(64 * pixels * pixels, classes),
        )

    def _head(self, inputs: int, classes: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for place, width in enumerate(self.hidden):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            layers += [nn.Dropout(self.dropout)] if self.dropout and not place else []
            inputs = width
        return [*layers, nn.Linear(inputs, classes)]
