"""Total variation minimisation: images rebuilt from a random part of their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.checks import at_least
from attacks.draws import Draws
from attacks.surface import Surface
from defenses.inputs.remembered import Remembered
from defenses.inputs.stochastic import Stochastic
from defenses.total_variation import minimise_total_variation

EOT_DRAWS = 20


@dataclass(frozen=True)
class TVM:
    """Drops each pixel, in all its channels, with probability `drop`, and rebuilds the image from the others.

    Guo, Rana, Cisse, van der Maaten 2018, arXiv 1711.00117: argmin_z sum_kept (z - x)^2 + `weight` TV(z), by
    `iterations` of split Bregman (`defenses/total_variation.py`); their code's drop rate and weight. In training an
    image is seen so with probability `train_share`, else as it is: 0.5 is a training set united with its copies, as in
    Wang et al. 2018, arXiv 1809.08516. Where `cached`, a training image is rebuilt once, from one mask in all epochs,
    and remembered (4 bytes a pixel); else from new ones each time.

    Broken by who averages over masks and lets the gradient pass as if images stayed what they are (Athalye, Carlini,
    Wagner 2018, arXiv 1802.00420), which is what its surface says. Raises ValueError for a field out of range.
    """

    name: ClassVar[str] = "tvm"
    drop: float = 0.5
    weight: float = 0.03
    iterations: int = 50
    train_share: float = 1.0
    cached: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop: must be in [0, 1), got {self.drop!r}")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight: must be finite and > 0, got {self.weight!r}")
        at_least("iterations", self.iterations, 1)
        if not 0 < self.train_share <= 1:
            raise ValueError(f"train_share: must be in (0, 1], got {self.train_share!r}")

    def __call__(self, channels: int, size: int) -> nn.Module:
        return _Rebuilt(self)

    def surface(self) -> Surface:
        return Surface(draws=EOT_DRAWS, backward=nn.Identity())


class _Rebuilt(Stochastic):
    def __init__(self, settings: TVM) -> None:
        super().__init__()
        self.settings = settings
        self.remembered = Remembered()

    def forward(self, x: Tensor) -> Tensor:
        draws = self.source(x)
        if not self.training:
            return self._rebuilt(x, draws) + 0 * x  # a gradient that says nothing, rather than none
        is_shown = draws.fork("shown").uniform() < self.settings.train_share
        rows = is_shown.nonzero().flatten()
        if not len(rows):
            return x
        shown = draws.select(rows)
        if self.settings.cached:
            rebuilt = self.remembered(x[rows], Draws(0, shown.example_ids), self._rebuilt)
        else:
            rebuilt = self._rebuilt(x[rows], shown)
        return x.index_copy(0, rows, rebuilt + 0 * x[rows])

    @torch.no_grad()
    def _rebuilt(self, x: Tensor, draws: Draws) -> Tensor:
        is_kept = draws.fork("mask").uniform(1, *x.shape[2:]) >= self.settings.drop
        found = minimise_total_variation(x.float(), is_kept, self.settings.weight, self.settings.iterations)
        return found.to(x)
