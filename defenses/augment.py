"""Random crops and mirror images, a whole batch at a time on its device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.draws import Draws

AUGMENTATIONS = {"none": (), "crop": ("crop",), "flip": ("flip",), "crop_flip": ("crop", "flip")}
"""Name -> what is done to each image."""


def augment(images: Tensor, name: str, draws: Draws) -> Tensor:
    """Crop: a window of the same size out of the image with a black border of an eighth of it (4 pixels
    at 32); flip: left and right swapped, with probability a half. [B, C, H, W] -> [B, C, H, W]

    Drawn per example, so that batch and order do not show. Never changes `images`.
    """
    if "crop" in AUGMENTATIONS[name]:
        images = _crop(images, draws.fork("crop"))
    if "flip" in AUGMENTATIONS[name]:
        is_flipped = draws.fork("flip").integers(2).bool()
        images = torch.where(is_flipped[:, None, None, None], images.flip(3), images)
    return images


def _crop(images: Tensor, draws: Draws) -> Tensor:
    size = images.shape[3]
    border = size // 8
    offsets = draws.integers(2 * border + 1, 2)  # [B, 2]: from above, from the left
    rows, columns = (offsets[:, :, None] + torch.arange(size, device=images.device)).unbind(1)  # [B, H], [B, W]
    padded = F.pad(images, (border,) * 4)
    tall = padded.gather(2, rows[:, None, :, None].expand(-1, padded.shape[1], -1, padded.shape[3]))
    return tall.gather(3, columns[:, None, None, :].expand(*tall.shape[:3], -1))
