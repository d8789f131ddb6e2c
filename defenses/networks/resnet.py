"""The residual networks of the CIFAR experiments: depth 6n + 2, shortcuts without parameters."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from defenses.networks.normalise import Normalise


@dataclass(frozen=True)
class ResNet:
    """Three stages of (depth - 2) / 6 blocks with `width`, 2 `width`, 4 `width` channels; any image size.

    He, Zhang, Ren, Sun 2016, arXiv 1512.03385, section 4.2, shortcut A. ResNet-20/32/44/56 at width 16 have
    269,722 / 464,154 / 658,586 / 853,018 parameters for 3 channels and 10 classes.
    Raises ValueError when depth is not 6n + 2, or width is not an integer >= 1.
    """

    name: ClassVar[str] = "resnet"
    depth: int = 20
    width: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.depth, int) or self.depth < 8 or self.depth % 6 != 2:
            nearest = 6 * max(1, round((self.depth - 2) / 6)) + 2
            raise ValueError(f"depth: must be 6n + 2 (8, 14, 20, ...; nearest {nearest}), got {self.depth!r}")
        if self.depth > 2000:
            raise ValueError(f"depth: must be at most 2000, got {self.depth!r}")
        if not isinstance(self.width, int) or self.width < 1:
            raise ValueError(f"width: must be an integer >= 1, got {self.width!r}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        blocks = (self.depth - 2) // 6
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            normalise=Normalise(channels),
            conv1=nn.Conv2d(channels, self.width, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(self.width),
            relu1=nn.ReLU(),
            stage1=_stage(self.width, self.width, 1, blocks),
            stage2=_stage(self.width, 2 * self.width, 2, blocks),
            stage3=_stage(2 * self.width, 4 * self.width, 2, blocks),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(4 * self.width, classes),
        )
        model = nn.Sequential(layers)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return model


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut that subsamples and pads with zero channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.stride = stride
        self.missing = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride], rounded up."""
        out = self.relu1(self.bn1(self.conv1(x)))
        summed: Tensor = self.relu2(self.bn2(self.conv2(out)) + self._shortcut(x))
        return summed

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        before = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, stride), *rest)
