"""The residual networks of the CIFAR experiments with bottlenecks: depth 9n + 2."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.initialise import initialise_convolutions
from defenses.networks.normalise import Normalise
from defenses.networks.residual_blocks import Bottleneck, stage


@dataclass(frozen=True)
class BottleneckResNet:
    """Three stages of (depth - 2) / 9 bottlenecks that give 4, 8, 16 `width` channels, and a hidden layer if wanted.

    The blocks are those of He, Zhang, Ren, Sun 2016 (arXiv 1512.03385), the depths those of their arXiv 1603.05027:
    depth 164 at width 16 has 1,704,154 parameters for 3 channels and 10 classes.
    `hidden: 1024` puts a linear layer, with no ReLU behind it, before the classifier. PCL (arXiv 1904.00887) calls its
    network ResNet-110; its released code has 18 such blocks per stage and that layer, which is `depth: 164, hidden:
    1024`: 1,975,002 parameters. With basic blocks, `resnet` has a depth of 110.
    Raises ValueError when depth is not 9n + 2, width is not an integer >= 1 or hidden is not one >= 0.
    """

    name: ClassVar[str] = "bottleneck_resnet"
    depth: int = 110
    width: int = 16
    hidden: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or self.depth < 11 or self.depth % 9 != 2:
            nearest = 9 * max(1, round((self.depth - 2) / 9)) + 2
            raise ValueError(f"depth: must be 9n + 2 (11, 20, 29, ...; nearest {nearest}), got {self.depth!r}")
        if self.depth > 2000:
            raise ValueError(f"depth: must be at most 2000, got {self.depth!r}")
        for field, least in (("width", 1), ("hidden", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{field}: must be an integer >= {least}, got {value!r}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        blocks, wide = (self.depth - 2) // 9, self.width
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(channels),
            conv1=nn.Conv2d(channels, wide, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(wide),
            relu1=nn.ReLU(),
            stage1=stage(Bottleneck, wide, wide, 1, blocks),
            stage2=stage(Bottleneck, 4 * wide, 2 * wide, 2, blocks),
            stage3=stage(Bottleneck, 8 * wide, 4 * wide, 2, blocks),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
        )
        if self.hidden:
            layers["hidden"] = nn.Linear(16 * wide, self.hidden)
        layers["linear"] = nn.Linear(self.hidden or 16 * wide, classes)
        model = nn.Sequential(layers)
        initialise_convolutions(model)
        return model
