"""Prototype conformity loss: hidden features gather round a prototype of their class, away from all others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from attacks.draws import Draws
from attacks.surface import Surface
from defenses.conformity import DISTANCES, Prototypes, Weights
from defenses.data import Data
from defenses.features import Place, chosen, reading, widths
from defenses.fit import Batch, fit
from defenses.learner import Learner, new_learner, new_optimizer
from defenses.nearest_prototype import NearestPrototype, put_beside
from defenses.networks.registry import Network
from defenses.state import Epoch, State, deployed, tensors
from defenses.training import Training

PROTOTYPES = ("separate", "shared")


@dataclass(frozen=True)
class PCL:
    """Cross-entropy, plus the distance of features to their class's prototype, minus that to the others.

    Mustafa, Khan, Hayat, Goecke, Shen, Shao, "Restricting the Hidden Space", ICCV 2019, arXiv 1904.00887. The defaults
    are the paper's equation 5, as a mean over the batch. The released code is `distance: squared`, `prototypes:
    separate` (those that attract move by `prototype_lr`, those that repel by `repelling_lr`), `apart: 0`, `separation:
    1e-4`, `branch: 0`; squared distances of wide features are large: small networks want far less than its `proximity`
    of 1. `apart` is the term between prototypes, in units of `separation`. The rates of prototypes do not depend on
    the weights, as in the code: their gradient is divided by the larger weight that acts on them.

    `stages` counts back from the classifier (all, where the network has fewer); `layers` names modules of the network
    instead, whose outputs are supervised. Maps are averaged to one number per channel, then `branch` maps them linearly
    to so many units (0: not at all); branches and prototypes are no part of what is deployed. In the first
    `cross_entropy_epochs` nothing else is trained. The variants on attacked images are `adversarial` beside it: the
    code's {name: pgd, steps: 10, step_size: 2/255, random_start: false, share: 0.5, eps: [0.02, 0.05]}, or fgsm.

    The authors' model without adversarial training is quoted at 32 % under PGD on CIFAR-10 and keeps 0.28 % under
    AutoAttack (RobustBench, Mustafa2019Adversarial): it hides its gradient. Raises ValueError for a field out of range.
    """

    name: ClassVar[str] = "pcl"
    uses_threat: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any] | None] = {"proximity": 0.0, "separation": 0.0}

    proximity: float = 1.0
    separation: float = 1.0
    apart: float = 1.0
    distance: str = "l2"
    prototypes: str = "shared"
    prototype_lr: float = 0.5
    repelling_lr: float = 1e-4
    prototype_scale: float = 1.0
    stages: int = 2
    layers: Sequence[str] = ()
    branch: int = 64
    cross_entropy_epochs: int = 0

    def __post_init__(self) -> None:
        for field in ("proximity", "separation", "apart"):
            self._number(field, 0.0, "finite and >= 0")
        for field in ("prototype_lr", "repelling_lr", "prototype_scale"):
            self._number(field, math.ulp(0.0), "finite and > 0")  # the least number above 0
        for field, low in (("stages", 1), ("branch", 0), ("cross_entropy_epochs", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or value < low:
                raise ValueError(f"{field}: must be an integer >= {low}, got {value!r}")
        for field, known in (("distance", DISTANCES), ("prototypes", PROTOTYPES)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field}: must be one of {', '.join(known)}, got {getattr(self, field)!r}")
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def ready_epoch(self) -> int:
        return self.cross_entropy_epochs if self._has_prototypes else 0

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """Raises ValueError where the network lacks a layer or stage, or the prototypes would never be trained."""
        learner = new_learner(network, data, training, draws)
        places: list[Place] = []
        if self._has_prototypes:
            self._refuse_too_late(training.epochs)
            places = chosen(learner.model, self.layers, self.stages)
            learner = self._with_prototypes(learner, places, data, training, draws)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            with reading(model, places) as features:
                value = F.cross_entropy(model(batch.x).float(), batch.y)
            if not places or batch.epoch < self.cross_entropy_epochs:
                return value
            conformity: Tensor = learner.modules["prototypes"]([features[place] for place in places], batch.y, weights)
            return value + conformity.mean()

        weights = Weights(self.proximity, self.separation, self.apart, self.distance)
        return fit(learner, loss, data, training, draws, state)

    def deployed(self, state: State) -> nn.Module:
        """The network alone. Beside it, for attackers (`feature_pgd`), what its features say by the prototypes."""
        model, found = deployed(state), tensors(state, "prototypes")
        if not found:
            return model
        places = chosen(model, self.layers, self.stages)
        return put_beside(model, NearestPrototype(model, places, Prototypes.of(found), self.distance))

    def surface(self) -> Surface:
        """Losses that do not flatten where logits are large, which is how PCL hides its gradient."""
        return Surface(losses=("scaled_cross_entropy", "margin", "dlr", "cross_entropy"))

    @property
    def _has_prototypes(self) -> bool:
        return bool(self.proximity or self.separation)

    def _refuse_too_late(self, epochs: int) -> None:
        if self.cross_entropy_epochs >= epochs:
            allowed = f"below training.epochs {epochs}, or nothing but cross-entropy is trained"
            raise ValueError(f"cross_entropy_epochs: must be {allowed}, got {self.cross_entropy_epochs}")

    def _with_prototypes(
        self, learner: Learner, places: Sequence[Place], data: Data, training: Training, draws: Draws
    ) -> Learner:
        """The learner with prototypes and branches beside the network, each with an optimizer of its own."""
        is_shared = self.prototypes == "shared"
        image = torch.zeros(1, data.channels, data.size, data.size, device=data.device)
        lengths = widths(learner.model, places, image)
        made = Prototypes(lengths, data.classes, self.branch, self.prototype_scale, is_shared, draws.fork(self.name))
        made.to(data.device)
        attracts = max(self.proximity, self.separation if is_shared or self.apart else 0.0)
        groups = [{"params": list(made.attracting), "lr": self.prototype_lr / (attracts or 1.0)}]
        if made.repelling is not None:
            groups.append({"params": list(made.repelling), "lr": self.repelling_lr / (self.separation or 1.0)})
        optimizers: dict[str, Optimizer] = {"prototypes": torch.optim.SGD(groups, foreach=True)}
        if self.branch:
            optimizers["branches"] = new_optimizer(training, made.branches.parameters())
        return replace(
            learner, modules=learner.modules | {"prototypes": made}, optimizers=learner.optimizers | optimizers
        )

    def _number(self, field: str, low: float, allowed: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, (int, float)) or not low <= value < math.inf:
            raise ValueError(f"{field}: must be {allowed}, got {value!r}")
