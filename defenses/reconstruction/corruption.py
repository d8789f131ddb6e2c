"""What is done to the images that an autoencoder learns to clean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.attack import Attack
from attacks.fgsm import FGSM
from attacks.pgd import PGD
from attacks.threat import Threat
from defenses.fit import Batch

CORRUPTIONS = ("none", "gaussian", "fgsm", "pgd", "mixed")
_MIXED = ("gaussian", "fgsm", "pgd")


@dataclass(frozen=True)
class Corruption:
    """`kind` of CORRUPTIONS: noise of deviation `std`, an attack within `threat`, or for each image one of the three.

    Which one is drawn by example and epoch.
    """

    kind: str
    std: float
    steps: int
    step_size: float | None
    threat: Threat | None

    def __call__(self, attacked: nn.Module, batch: Batch) -> Tensor:
        """The images of the batch, each corrupted; attacks are on `attacked`. -> [B, C, H, W] in [0, 1]"""
        if self.kind != "mixed":
            return self._corrupted(self.kind, attacked, batch)
        chosen = batch.draws.fork("corruption").integers(len(_MIXED))
        x = batch.x.clone()
        for number, kind in enumerate(_MIXED):
            rows = (chosen == number).nonzero().flatten()
            if len(rows):
                x[rows] = self._corrupted(kind, attacked, batch.select(rows)).to(x)
        return x

    def _corrupted(self, kind: str, attacked: nn.Module, batch: Batch) -> Tensor:
        if kind == "none":
            return batch.x
        if kind == "gaussian":
            return (batch.x + self.std * batch.draws.fork("noise").normal(*batch.x.shape[1:])).clamp(0, 1)
        assert self.threat is not None
        pgd = PGD(self.steps, step_size=self.step_size, keep="last")
        attack: Attack = pgd if kind == "pgd" else FGSM()
        return attack(attacked, batch.x, batch.y, self.threat, batch.draws.fork(kind)).to(torch.float32)
