"""The training data: two tensors on the training device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Data:
    """`images` uint8 [N, C, H, W] and `labels` int64 [N] in 0..classes-1, on one device.

    Raises ValueError for other types or shapes, images that are not square, fewer than 2 of them, fewer
    than 2 classes, labels out of range.
    """

    images: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[2] != images.shape[3] or len(images) < 2:
            seen = f"{images.dtype} {list(images.shape)}"
            raise ValueError(f"images: must be uint8 [N >= 2, C, H, W] with H = W, got {seen}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            seen = f"{labels.dtype} {list(labels.shape)}"
            raise ValueError(f"labels: must be int64 [{len(images)}], one per image, got {seen}")
        if self.classes < 2:
            raise ValueError(f"classes: must be >= 2, got {self.classes}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise ValueError(f"labels: must be in 0..{self.classes - 1}, got {low}..{high}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return self.images.shape[2]

    @property
    def device(self) -> torch.device:
        return self.images.device

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Per channel, of pixels in [0, 1]. -> float32 [C], [C]

        Summed in integers, so that no order of summation shows. A constant channel gets the deviation of
        one grey level, that nothing is divided by 0.
        """
        total = squares = torch.zeros(self.channels, dtype=torch.int64, device=self.device)
        for block in torch.split(self.images, _BLOCK):
            pixels = block.to(torch.int32)
            total = total + pixels.sum((0, 2, 3))
            squares = squares + pixels.square_().sum((0, 2, 3))
        count = len(self) * self.size**2
        mean = total.double() / count
        variance = squares.double() / count - mean.square()
        return (mean / 255).float(), (variance.clamp(min=1.0).sqrt() / 255).float()
