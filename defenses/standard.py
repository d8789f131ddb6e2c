"""No defense: the yardstick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.surface import Surface
from defenses.data import Data
from defenses.fit import Batch, fit
from defenses.learner import new_learner
from defenses.networks.registry import Network
from defenses.state import Epoch, State, deployed
from defenses.training import Training


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are."""

    name: ClassVar[str] = "standard"
    uses_threat: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any] | None] = {}
    ready_epoch: ClassVar[int] = 0

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        return fit(new_learner(network, data, training, draws), _loss, data, training, draws, state)

    def deployed(self, state: State) -> nn.Module:
        return deployed(state)

    def surface(self) -> Surface:
        return Surface()


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.x).float(), batch.y)
