"""A loss whose network stands behind transforms: they draw by example, and images have a gradient through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from attacks.sources import drawing
from defenses.inputs.front import Front, standing_in

if TYPE_CHECKING:
    from defenses.fit import Batch, Loss


def through(loss: Loss, front: Front) -> Loss:
    """`loss`, and the attacks made in it, with the draws of the batch and the gradients of the stand-ins."""

    def fronted(model: nn.Module, batch: Batch) -> Tensor:
        with drawing(front, batch.draws.fork("input")), standing_in(model):
            return loss(model, batch)

    return fronted
