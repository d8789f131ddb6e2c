"""A minimum-norm attack is run once on an example: the nearest point it found answers for every eps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.projections import project
from attacks.threat import Threat


class NearestOnce:
    """The nearest points found so far for the images [n, C, H, W]; the image itself where none was looked for."""

    def __init__(self, images: Tensor) -> None:
        self._images, self._points = images, images.clone()
        self._is_known = torch.zeros(len(images), dtype=torch.bool)

    def within(self, threat: Threat, rows: Tensor, find: Callable[[Tensor], Tensor]) -> Tensor:
        """What the attack answers for `rows` [m] under `threat`; `find` is asked about those that are new."""
        new = rows[~self._is_known[rows]]
        if len(new):
            self._points[new], self._is_known[new] = find(new), True
        return project(self._images[rows], self._points[rows], threat)
