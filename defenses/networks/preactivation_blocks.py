"""Blocks of residual networks in which normalisation and ReLU come before each convolution."""

from __future__ import annotations

from torch import Tensor, nn


class PreactBasic(nn.Module):
    """Two 3x3 convolutions beside a shortcut, dropout between them where `dropout` is not 0.

    He, Zhang, Ren, Sun 2016, arXiv 1603.05027, figure 4 e; with dropout Zagoruyko, Komodakis 2016, arXiv 1605.07146.
    Where the shape changes a 1x1 convolution of the activated input is the shortcut.
    """

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = projection(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, channels, H / stride, W / stride], rounded up."""
        active = self.relu1(self.bn1(x))
        out: Tensor = self.conv2(self.dropout(self.relu2(self.bn2(self.conv1(active)))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class PreactBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the same shortcut: 4 `channels` go out."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * channels
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu3 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 channels, H / stride, W / stride], rounded up."""
        active = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        out = self.conv3(self.relu3(self.bn3(out)))
        summed: Tensor = out + (x if self.shortcut is None else self.shortcut(active))
        return summed


def projection(inputs: int, outputs: int, stride: int) -> nn.Conv2d | None:
    """None where the shape stays: the shortcut is then the input as it is, not the activated one."""
    return None if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
