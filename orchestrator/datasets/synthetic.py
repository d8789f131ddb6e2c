"""Generated images: class means plus noise, for tests and benchmarks of the sweep itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from orchestrator.datasets.dataset import Images, Labels

MOST_VALUES = 10**10  # bytes of images: ten times those of all datasets here


@dataclass(frozen=True)
class Synthetic:
    """`examples` training images and a quarter as many for the test, near-balanced over the classes.

    Each class has a mean image drawn uniformly from [0.2, 0.8]; every image is its class's mean plus normal
    noise of standard deviation `noise`, clipped to [0, 1]. The same settings give the same images.
    """

    seed: int = 0
    classes: int = 10
    channels: int = 1
    size: int = 8
    examples: int = 1000
    noise: float = 0.15

    name: ClassVar[str] = "synthetic"
    default_root: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for field, least in (("seed", 0), ("classes", 2), ("channels", 1), ("size", 1), ("examples", 4), ("noise", 0)):
            if not getattr(self, field) >= least:
                raise ValueError(f"{field}: must be >= {least}, got {getattr(self, field)!r}")
        if (values := self.examples * self.channels * self.size**2) > MOST_VALUES:
            raise ValueError(f"examples: times channels and size^2 must be at most {MOST_VALUES:,}, got {values:,}")

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        shape = (self.channels, self.size, self.size)
        means = np.random.default_rng([self.seed, 0]).uniform(0.2, 0.8, (self.classes, *shape))
        rng = np.random.default_rng([self.seed, 1 if split == "train" else 2])
        count = self.count(root, split)
        labels = rng.permutation(np.arange(count, dtype=np.int64) % self.classes)
        images = np.empty((count, *shape), dtype=np.uint8)
        for row, label in enumerate(labels):  # row by row: a whole float64 copy would be eight times the result
            values = means[label] + self.noise * rng.standard_normal(shape)
            images[row] = np.rint(np.clip(values, 0, 1) * 255)
        return images, labels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.classes

    @property
    def sizes(self) -> dict[str, int]:
        return {split: self.count(None, split) for split in ("train", "test")}

    def count(self, root: Path | None, split: str) -> int:
        return self.examples if split == "train" else self.examples // 4
