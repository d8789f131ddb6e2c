"""Blocks of residual networks that end in a ReLU, with a projection where the shape changes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; `channels` come in wide or not, and go out as `channels`.

    He, Zhang, Ren, Sun 2016, arXiv 1512.03385, figure 5 left, shortcut B.
    """

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = projection(inputs, channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, channels, H / stride, W / stride], rounded up."""
        out = self.relu1(self.bn1(self.conv1(x)))
        summed: Tensor = self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))
        return summed


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: 4 `channels` go out. The 3x3 one has the stride.

    Figure 5 right of the same paper, whose first 1x1 convolution has the stride; nearly all code since moved it.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 channels, H / stride, W / stride], rounded up."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        summed: Tensor = self.relu3(self.bn3(self.conv3(out)) + self.shortcut(x))
        return summed


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else a 1x1 convolution and a normalisation."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Block(Protocol):
    """A residual block, by its class: `expansion` times `channels` go out."""

    expansion: int

    def __call__(self, inputs: int, channels: int, stride: int, /) -> nn.Module: ...


def stage(block: Block, inputs: int, channels: int, stride: int, count: int) -> nn.Module:
    """`count` blocks in a row, the first of which has the stride."""
    outputs = block.expansion * channels
    rest = (block(outputs, channels, 1) for _ in range(count - 1))
    return nn.Sequential(block(inputs, channels, stride), *rest)
