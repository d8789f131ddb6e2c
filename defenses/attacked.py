"""A loss on batches of which some images are attacked first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from attacks.threat import Threat
from defenses.adversarial import Adversarial

if TYPE_CHECKING:
    from defenses.fit import Batch, Loss


def on_attacked(loss: Loss, adversarial: Adversarial, threat: Threat | None) -> Loss:
    """`loss` of the batch with the images that are to be attacked in their attacked form, in their places."""

    def attacked(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model, replace(batch, x=_attacked(adversarial, threat, model, batch)))

    return attacked


def _attacked(adversarial: Adversarial, threat: Threat | None, model: nn.Module, batch: Batch) -> Tensor:
    """-> [B, C, H, W]"""
    within = adversarial.threat(threat, batch.draws, batch.number)
    if batch.is_attacked is None:
        return adversarial.attack(model, batch.x, batch.y, within, batch.draws.fork("attacked"))
    rows = batch.is_attacked.nonzero().flatten()
    if not len(rows):
        return batch.x
    part = batch.select(rows)
    x = batch.x.clone()
    x[rows] = adversarial.attack(model, part.x, part.y, within, part.draws.fork("attacked")).to(x)
    return x
