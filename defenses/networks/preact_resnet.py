"""Residual networks with normalisation and ReLU before each convolution, as adversarial training likes them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.initialise import initialise_convolutions
from defenses.networks.normalise import Normalise
from defenses.networks.preactivation_blocks import PreactBasic, PreactBottleneck
from defenses.networks.residual_blocks import stage
from defenses.networks.stage_depths import DEPTHS, refuse_stages


@dataclass(frozen=True)
class PreactResNet:
    """PreActResNet-18 to 152 for small images: a 3x3 stem, four stages of `width`, 2, 4, 8 `width` channels.

    Blocks of He, Zhang, Ren, Sun 2016, arXiv 1603.05027; the stages are those of ImageNet, not of that paper's CIFAR
    networks. Depth 18 is the usual network of adversarial training on CIFAR-10 (Rice, Wong, Kolter 2020, arXiv
    2002.11569): 11,172,170 parameters for 3 channels and 10 classes. A last normalisation and ReLU stand before the
    pooling, as in the paper.
    Raises ValueError unless depth is 18, 34, 50, 101 or 152 and width an integer >= 1.
    """

    name: ClassVar[str] = "preact_resnet"
    depth: int = 18
    width: int = 64

    def __post_init__(self) -> None:
        refuse_stages(self.depth, self.width)

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        blocks, is_bottleneck = DEPTHS[self.depth]
        block = PreactBottleneck if is_bottleneck else PreactBasic
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(channels), conv1=nn.Conv2d(channels, self.width, 3, padding=1, bias=False)
        )
        inputs = self.width
        for number, count in enumerate(blocks):
            wide = self.width * 2**number
            layers[f"stage{number + 1}"] = stage(block, inputs, wide, 2 if number else 1, count)
            inputs = wide * block.expansion
        layers |= {"bn": nn.BatchNorm2d(inputs), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1)}
        layers |= {"flatten": nn.Flatten(), "linear": nn.Linear(inputs, classes)}
        model = nn.Sequential(layers)
        initialise_convolutions(model)
        return model
