"""A transform that draws, for each example anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.draws import Draws


class Stochastic(nn.Module):
    """Draws from what it is lent (`attacks.sources`); without, each pass has draws of its own, by row and by pass."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: Draws | None = None
        self.passes = 0
        """How many passes had draws of their own."""

    def source(self, x: Tensor) -> Draws:
        if self.draws is not None:
            return self.draws.to(x.device)
        self.passes += 1
        return Draws(self.passes, torch.arange(len(x), device=x.device))
