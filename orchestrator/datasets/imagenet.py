"""ImageNet as it is unpacked for torchvision: a folder of JPEGs per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.datasets.image_folder import ImageFolder


@dataclass(frozen=True)
class ImageNet(ImageFolder):
    """ILSVRC 2012 (Russakovsky et al. 2015) from ROOT/train/WNID/*.JPEG and ROOT/val/WNID/*.JPEG, the test split.

    The usual preparation: the shorter side to `resize` pixels, then a square of `size` from the middle, in colour;
    this also for training images, which `training.augment` may flip and shift, but which get no random crop of
    another scale. An image of 224 pixels takes 150,528 bytes, so all 1,281,167 training images take 193 GB, twice
    that while workers are given theirs: `train: 100000` takes 15 GB. Only the images asked for are decoded.
    """

    size: int | None = 224
    resize: int | None = 256
    channels: int | None = 3

    name: ClassVar[str] = "imagenet"
    default_root: ClassVar[str | None] = "~/data/imagenet"
    sizes: ClassVar[dict[str, int]] = {"train": 1_281_167, "test": 50_000}
    folders: ClassVar[dict[str, str]] = {"train": "train", "test": "val"}
    source: ClassVar[str] = (
        "name in `root` the folder of ImageNet in which train/WNID/*.JPEG and val/WNID/*.JPEG lie; "
        "torchvision.datasets.ImageNet unpacks the archives of image-net.org into these folders"
    )

    @property
    def shape(self) -> tuple[int, int, int] | None:
        return None if self.size is None or self.channels is None else (self.channels, self.size, 1000)
