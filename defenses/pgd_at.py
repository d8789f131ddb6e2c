"""Adversarial training: learn from the images that PGD makes of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.pgd import PGD
from attacks.queries import querying
from attacks.surface import Surface
from attacks.threat import Threat
from defenses.adversarial import refuse_beside
from defenses.data import Data
from defenses.fit import Batch, fit
from defenses.learner import new_learner
from defenses.networks.registry import Network
from defenses.state import Epoch, State, deployed
from defenses.training import Training

LABELS = ("true", "predicted")


@dataclass(frozen=True)
class PgdAT:
    """Cross-entropy on adversarial images, crafted anew in every batch.

    Madry et al. 2018, arXiv 1706.06083, is the default: adversarial images only. `clean_weight` 0.5 with `labels`
    "predicted" (attack what the network says, not the truth, so that no label leaks), 7 steps of 0.01 is the
    "vanilla" training of PNI (He, Rakin, Fan 2019) and Learn2Perturb (arXiv 2003.01090).

    `step_size`, a fraction of the pixel range, is 2.5 eps / steps where None. `eps` replaces the sweep's; where no
    threat is given either, its norm is linf. The attack asks the network in eval mode: its batch norm neither
    learns from half-made images nor lets one image move another. Raises ValueError for a field out of range.
    """

    name: ClassVar[str] = "pgd_at"
    uses_threat: ClassVar[bool] = True
    attacks_itself: ClassVar[bool] = True
    neutral: ClassVar[dict[str, Any] | None] = {"eps": 0.0}
    ready_epoch: ClassVar[int] = 0

    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    loss: str = "cross_entropy"
    clean_weight: float = 0.0
    labels: str = "true"
    eps: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps: must be an integer >= 1, got {self.steps!r}")
        if self.step_size is not None and not self.step_size > 0:
            raise ValueError(f"step_size: must be > 0 or null, got {self.step_size!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if not 0 <= self.clean_weight < 1:
            raise ValueError(f"clean_weight: must be in [0, 1), got {self.clean_weight!r}")
        if self.labels not in LABELS:
            raise ValueError(f"labels: must be one of {', '.join(LABELS)}, got {self.labels!r}")
        if self.eps is not None:
            Threat("linf", self.eps)

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """Raises ValueError when neither `eps` nor `training.threat` is given, or images come attacked already."""
        refuse_beside(self, training.adversarial)
        threat = self._threat(training.threat)
        attack = PGD(
            steps=self.steps,
            restarts=1,
            step_size=self.step_size,
            loss=self.loss,
            random_start=self.random_start,
            keep="last",
        )

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            target = batch.y if self.labels == "true" else _predicted(model, batch)
            adversarial = attack(model, batch.x, target, threat, batch.draws.fork(self.name))
            return self._loss(model, batch, adversarial)

        return fit(new_learner(network, data, training, draws), loss, data, training, draws, state)

    def deployed(self, state: State) -> nn.Module:
        return deployed(state)

    def surface(self) -> Surface:
        return Surface()

    def _threat(self, threat: Threat | None) -> Threat:
        if self.eps is not None:
            return Threat(threat.norm if threat else "linf", self.eps)
        if threat is None:
            raise ValueError("eps: must be given where training.threat is not, got None")
        return threat

    def _loss(self, model: nn.Module, batch: Batch, adversarial: Tensor) -> Tensor:
        attacked = F.cross_entropy(model(adversarial).float(), batch.y)
        if not self.clean_weight:
            return attacked
        clean = F.cross_entropy(model(batch.x).float(), batch.y)
        return self.clean_weight * clean + (1 - self.clean_weight) * attacked


def _predicted(model: nn.Module, batch: Batch) -> Tensor:
    """What the network takes the clean images for. -> [B]"""
    with querying(model) as queries:
        return queries.logits(batch.x, batch.draws.fork("predicted labels")).argmax(1)
