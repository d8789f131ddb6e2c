"""Wide residual networks: depth 6n + 4, many times wider than the thin ones."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.initialise import initialise_convolutions
from defenses.networks.normalise import Normalise
from defenses.networks.preactivation_blocks import PreactBasic

_STEM = 16


@dataclass(frozen=True)
class WideResNet:
    """WRN-`depth`-`widen`: three stages of (depth - 4) / 6 blocks with 16, 32, 64 times `widen` channels; any size.

    Zagoruyko, Komodakis 2016, arXiv 1605.07146; `dropout` is the chance of a zero between the two convolutions of
    a block. For 3 channels and 10 classes WRN-28-10 has 36,479,194 parameters, WRN-34-10, the network of adversarial
    training, 46,160,474.
    Raises ValueError when depth is not 6n + 4, widen is not an integer >= 1 or dropout is not in [0, 1).
    """

    name: ClassVar[str] = "wide_resnet"
    depth: int = 28
    widen: int = 10
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or self.depth < 10 or self.depth % 6 != 4:
            nearest = 6 * max(1, round((self.depth - 4) / 6)) + 4
            raise ValueError(f"depth: must be 6n + 4 (10, 16, 22, ...; nearest {nearest}), got {self.depth!r}")
        if self.depth > 2000:
            raise ValueError(f"depth: must be at most 2000, got {self.depth!r}")
        if not isinstance(self.widen, int) or self.widen < 1:
            raise ValueError(f"widen: must be an integer >= 1, got {self.widen!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: must be in [0, 1), got {self.dropout!r}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        wide = _STEM * self.widen
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(channels),
            conv1=nn.Conv2d(channels, _STEM, 3, padding=1, bias=False),
            stage1=self._stage(_STEM, wide, 1),
            stage2=self._stage(wide, 2 * wide, 2),
            stage3=self._stage(2 * wide, 4 * wide, 2),
            bn=nn.BatchNorm2d(4 * wide),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(4 * wide, classes),
        )
        model = nn.Sequential(layers)
        initialise_convolutions(model)
        return model

    def _stage(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        rest = (PreactBasic(outputs, outputs, 1, self.dropout) for _ in range((self.depth - 4) // 6 - 1))
        return nn.Sequential(PreactBasic(inputs, outputs, stride, self.dropout), *rest)
