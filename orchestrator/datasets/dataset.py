"""What a dataset is: settings that, called with a folder and a split, give all its images and labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # [N, C, H, W]
Labels = npt.NDArray[np.int64]  # [N]
Rows = npt.NDArray[np.int64]  # [M], numbers of rows
Take = Callable[[Rows], Images]
"""Gives the images of these rows, in their order."""


class Dataset(Protocol):
    """A frozen dataclass whose fields are the settings a spec may give.

    `default_root` is the folder used when the spec names none; None where no folder is needed or where
    there is no sensible guess. No field may be called name, root, validation, train or test: those keys
    of a spec belong to every dataset. Rows come in an order that never changes: their numbers are the example ids.
    `count(root, split)`, where there is one, says how many rows there are without reading an image or a label, and
    raises UserError where files are missing: what is wrong with a test split is then said before hours of training.
    `opened(root, split)`, where there is one, gives a `Take` and all labels: then only those images are read that a
    spec asks for, and no image before it is known which.
    `shape` (channels, height or width, classes) and `sizes` (rows by split), where there are such, are known before
    anything is read: `robustsweep check` plans by them.
    """

    name: ClassVar[str]
    default_root: ClassVar[str | None]

    def __call__(self, root: Path | None, split: str) -> tuple[Images, Labels]:
        """All of the split "train" or "test"; opens no file of the other one. Raises UserError where data is broken."""
        ...
