"""Images shrunk to a random size, at a random place on black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.surface import Surface
from defenses.inputs.stochastic import Stochastic

EOT_DRAWS = 20


@dataclass(frozen=True)
class RandomResizePad:
    """Side lengths are uniform from `least` times the size to the size, in whole pixels (Xie, Wang, Zhang, Ren, Yuille
    2018, arXiv 1711.01991). There the images grow beyond the size; here they shrink, since a network takes one size.
    """

    name: ClassVar[str] = "random_resize_pad"
    least: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.least < 1:
            raise ValueError(f"least: must be in (0, 1), got {self.least!r}")

    def __call__(self, channels: int, size: int) -> nn.Module:
        return _Resize(max(1, round(self.least * size)), size)

    def surface(self) -> Surface:
        return Surface(draws=EOT_DRAWS)


class _Resize(Stochastic):
    def __init__(self, least: int, size: int) -> None:
        super().__init__()
        self.least, self.size = least, size

    def forward(self, x: Tensor) -> Tensor:
        draws = self.source(x)
        side = self.least + draws.fork("side").integers(self.size - self.least + 1)  # [B]
        room = (self.size - side + 1)[:, None]
        corner = (draws.fork("corner").uniform(2) * room).long()  # [B, 2]: from above, from the left
        pixels = torch.arange(self.size, device=x.device)
        # where the centre of each pixel lies in the image, from -1 to 1; outside there is black
        down, across = ((pixels + 0.5 - corner[:, :, None]) * 2 / side[:, None, None] - 1).unbind(1)  # [B, size]
        columns, rows = across[:, None, :].expand(-1, self.size, -1), down[:, :, None].expand(-1, -1, self.size)
        grid = torch.stack([columns, rows], 3)  # [B, size, size, 2]
        return F.grid_sample(x, grid.to(x.dtype), align_corners=False)
