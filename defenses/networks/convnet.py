"""The small convolutional network that MatConvNet trained on CIFAR-10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.normalise import Normalise


@dataclass(frozen=True)
class ConvNet:
    """32-32-64 convolutions of 5x5, 64 of 4x4, the classes by 1x1; any image size from 4 pixels.

    The CIFAR-10 network of Deep Defense (Yan, Guo, Zhang 2018, arXiv 1803.00404): 145,578 parameters for 3
    channels and 10 classes, whatever the size. The first pooling takes the maximum, the others the average.
    The 4x4 convolution wants a 4x4 map: 32x32 images give one, the map of others is averaged to it.
    """

    name: ClassVar[str] = "convnet"

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        return nn.Sequential(
            Normalise(channels),
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(3, stride=2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(64, 64, 4),
            nn.ReLU(),
            nn.Conv2d(64, classes, 1),
            nn.Flatten(),
        )
