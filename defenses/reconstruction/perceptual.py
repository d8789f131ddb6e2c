"""How unlike two pictures are to a network: the distance of its feature maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.queries import querying
from defenses.features import Place, reading

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"squared": F.mse_loss, "absolute": F.l1_loss}


@dataclass(frozen=True)
class Perceptual:
    """pixel_weight d(z, x) + sum_l weights[l] d(features_l(z), features_l(x)), each d a mean over all elements."""

    places: Sequence[Place]
    weights: Sequence[float]
    pixel_weight: float
    distance: str

    def __call__(self, network: nn.Module, z: Tensor, x: Tensor) -> Tensor:
        """How unlike `z` is to the clean images `x`. [B, C, H, W] each -> []

        Its gradient passes through the network to `z`, and changes nothing in the network: neither weights nor the
        statistics of batch norm. There are no features of a picture on which no weight lies.
        """
        apart = DISTANCES[self.distance]
        loss = self.pixel_weight * apart(z.float(), x.float())
        if not any(self.weights):
            return loss
        with querying(network), reading(network, self.places) as features:
            with torch.no_grad():
                network(x)
            wanted = [features[place] for place in self.places]
            network(z)
            found = [features[place] for place in self.places]
        for weight, ours, theirs in zip(self.weights, found, wanted, strict=True):
            loss = loss + weight * apart(ours.float(), theirs.float())
        return loss
