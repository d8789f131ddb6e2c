"""Batches of clean images and of the same images attacked, half and half."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.attack import Attack
from attacks.threat import Threat
from defenses.fit import Batch


@dataclass(frozen=True)
class Attacked:
    """Adds to each batch its images under `attack`, at an eps uniform in [low, high] that is drawn anew for each batch.

    All of one batch have the same eps, also where memory divides it into parts. The attack asks the network in eval
    mode, as it does in `pgd_at`.
    """

    attack: Attack
    norm: str
    low: float
    high: float

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Clean images first, in the order of the batch. -> [2B, C, H, W], [2B]"""
        threat = Threat(self.norm, self.eps(batch))
        adversarial = self.attack(model, batch.x, batch.y, threat, batch.draws.fork("attacked"))
        return torch.cat([batch.x, adversarial]), torch.cat([batch.y, batch.y])

    def eps(self, batch: Batch) -> float:
        generator = batch.draws.generator("attacked eps", batch.number)
        return self.low + (self.high - self.low) * float(torch.rand((), generator=generator))
