"""ResNet-18 to ResNet-152 with the stem for small images: no pooling before the blocks."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from defenses.networks.initialise import initialise_convolutions
from defenses.networks.normalise import Normalise
from defenses.networks.residual_blocks import BasicBlock, Bottleneck, stage
from defenses.networks.stage_depths import DEPTHS, refuse_stages


@dataclass(frozen=True)
class FourStageResNet:
    """The ResNet-18 of CIFAR papers and its relatives: four stages of `width`, 2, 4, 8 `width` channels, a 3x3 stem.

    He, Zhang, Ren, Sun 2016, arXiv 1512.03385, table 1, with a 3x3 convolution of stride 1 in place of the 7x7 one
    and its pooling. Depth 18 is the ResNet-V2(18) of Learn2Perturb (arXiv 2003.01090): 11,173,962 parameters for 3
    channels and 10 classes. From 64 pixels on `torchvision` has the stem of the paper.
    Raises ValueError unless depth is 18, 34, 50, 101 or 152 and width an integer >= 1.
    """

    name: ClassVar[str] = "four_stage_resnet"
    depth: int = 18
    width: int = 64

    def __post_init__(self) -> None:
        refuse_stages(self.depth, self.width)

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        blocks, is_bottleneck = DEPTHS[self.depth]
        block = Bottleneck if is_bottleneck else BasicBlock
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(channels),
            conv1=nn.Conv2d(channels, self.width, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(self.width),
            relu1=nn.ReLU(),
        )
        inputs = self.width
        for number, count in enumerate(blocks):
            wide = self.width * 2**number
            layers[f"stage{number + 1}"] = stage(block, inputs, wide, 1 if number == 0 else 2, count)
            inputs = wide * block.expansion
        layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(inputs, classes)}
        model = nn.Sequential(layers)
        initialise_convolutions(model)
        return model
