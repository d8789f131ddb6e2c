"""LeNet, in the form in which Caffe made it the network of MNIST papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.normalise import Normalise

_SMALLEST = 16  # below, two 5x5 convolutions without padding and two poolings leave no pixel


@dataclass(frozen=True)
class LeNet:
    """conv 20 - pool - conv 50 - pool - fc 500 - fc; any image size.

    The MNIST network of Deep Defense (arXiv 1803.00404) and Feature Losses (arXiv 1912.04497): 431,080
    parameters on 28x28x1 and 10 classes. ReLU follows both convolutions and the hidden layer. Images below
    16 pixels get a border of zeros, after normalisation the mean grey, up to that size.
    """

    name: ClassVar[str] = "lenet"

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        missing = max(0, _SMALLEST - size)
        padded = size + missing
        pixels = ((padded - 4) // 2 - 4) // 2
        return nn.Sequential(
            Normalise(channels),
            nn.ZeroPad2d((missing // 2, missing - missing // 2) * 2),
            nn.Conv2d(channels, 20, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(50 * pixels * pixels, 500),
            nn.ReLU(),
            nn.Linear(500, classes),
        )
