"""Feature losses: an autoencoder cleans images before they are classified, and learns by the features of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.checks import at_least, one_of, positive
from attacks.draws import Draws
from attacks.surface import Surface
from attacks.threat import Threat
from defenses.adversarial import refuse_beside
from defenses.data import Data
from defenses.features import chosen, widths
from defenses.fit import Batch, fit
from defenses.learner import Learner, new_learner, new_optimizer
from defenses.nearest_prototype import put_beside
from defenses.networks.registry import Network
from defenses.reconstruction.autoencoder import SKIPS, Autoencoder
from defenses.reconstruction.corruption import CORRUPTIONS, Corruption
from defenses.reconstruction.perceptual import DISTANCES, Perceptual
from defenses.reconstruction.pipeline import AsIfUnchanged, Pipeline
from defenses.seeding import seeded
from defenses.state import Epoch, State, deployed, tensors
from defenses.training import Training

FEATURES = ("task", "independent")
AGAINST = ("classifier", "pipeline")
_CLASSIFIERS = ("model", "independent")


@dataclass(frozen=True)
class FeatureLosses:
    """A denoising autoencoder in front of a classifier, trained by the distance of feature maps.

    Sivamani 2019, arXiv 1912.04497. With x' a corrupted image and z = A(x'), the autoencoder A goes down
    `pixel_weight` d(z, x) plus, over the layers l of a network that is not changed by it, `weights` d(f_l(z), f_l(x)).
    The network is the classifier itself (`features: task`), or another one like it, trained beside it from other first
    weights (independent). Layers are its last `stages`, or the modules that `layers` names; `weights` is one number for
    all, or one for each. The author's code has weights of 1 and squared distances, on three layers of a VGG-16 trained
    on ImageNet, whose weights are not to be had here.

    The classifier is trained by cross-entropy alone, for `classifier_epochs`, and rests while the autoencoder learns;
    None trains both all along, for short trainings; 0 is for a classifier that comes trained (`training.start`).
    `corruption` is what x' has suffered: nothing (as in the author's code), gaussian noise of deviation `std`, fgsm or
    pgd at `eps` (the sweep's where None) `against` the bare classifier or the whole pipeline, or one of the three for
    each image (mixed). `lr` and `weight_decay` of Adam are the code's and the autoencoder's own; the training's
    schedule scales that rate over all epochs. `width`, `depth`, `bottleneck`, `skip` and `residual` are the
    autoencoder's (`defenses/reconstruction/autoencoder.py`).

    What is deployed is differentiable from end to end, so nothing keeps an attacker from going through both. Raises
    ValueError for a field out of range.
    """

    name: ClassVar[str] = "feature_losses"
    uses_threat: ClassVar[bool] = False  # of the defaults: an instance that attacks says True
    attacks_itself: ClassVar[bool] = False  # the same
    neutral: ClassVar[dict[str, Any] | None] = None

    features: str = "task"
    stages: int = 3
    layers: Sequence[str] = ()
    weights: float | Sequence[float] = 1.0
    pixel_weight: float = 1.0
    distance: str = "squared"
    corruption: str = "gaussian"
    std: float = 0.1
    eps: float | None = None
    steps: int = 7
    step_size: float | None = None
    against: str = "classifier"
    width: int = 32
    depth: int = 2
    bottleneck: int = 0
    skip: str = "none"
    residual: bool = False
    lr: float = 1e-3
    weight_decay: float = 1e-5
    classifier_epochs: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if isinstance(self.weights, Sequence):
            object.__setattr__(self, "weights", tuple(self.weights))
        for field, known in (
            *(("features", FEATURES), ("distance", DISTANCES), ("corruption", CORRUPTIONS)),
            *(("against", AGAINST), ("skip", SKIPS)),
        ):
            one_of(field, getattr(self, field), known)
        for field, low in (("stages", 1), ("steps", 1), ("width", 1), ("depth", 1), ("bottleneck", 0)):
            at_least(field, getattr(self, field), low)
        if self.classifier_epochs is not None:
            at_least("classifier_epochs", self.classifier_epochs, 0)
        weights = self.weights if isinstance(self.weights, Sequence) else (self.weights,)
        for field, numbers in (("weights", weights), *((f, (getattr(self, f),)) for f in _AT_LEAST_ZERO)):
            if not all(0 <= number < math.inf for number in numbers):
                raise ValueError(f"{field}: must be finite and >= 0, got {getattr(self, field)!r}")
        positive("lr", self.lr)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        if self.eps is not None:
            Threat("linf", self.eps)
        if not self.pixel_weight and not any(weights):
            raise ValueError("weights: must not all be 0 where pixel_weight is, or the autoencoder learns nothing")
        if self.features == "independent" and self.classifier_epochs == 0:
            raise ValueError("classifier_epochs: must be >= 1 or null where features are independent, got 0")
        object.__setattr__(self, "uses_threat", self._attacks and self.eps is None)
        object.__setattr__(self, "attacks_itself", self._attacks)

    @property
    def ready_epoch(self) -> int:
        return self.classifier_epochs or 0

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """Raises ValueError where the network lacks a layer, `weights` are not one for each, the autoencoder would
        never be trained, or there is neither `eps` nor `training.threat` to attack with."""
        refuse_beside(self, training.adversarial)
        if self.classifier_epochs is not None and self.classifier_epochs >= training.epochs:
            allowed = f"below training.epochs {training.epochs}, or the autoencoder is not trained"
            raise ValueError(f"classifier_epochs: must be {allowed}, got {self.classifier_epochs}")
        corruption = self._corruption(training.threat)
        learner = self._learner(network, data, training, draws)
        autoencoder, classifier = learner.modules["autoencoder"], learner.model
        seen = learner.modules.get("independent", classifier)
        perceptual = self._perceptual(seen, data)
        attacked = Pipeline(autoencoder, classifier) if self.against == "pipeline" else classifier

        def loss(_model: nn.Module, batch: Batch) -> Tensor:
            """What rests in this epoch is no part of it, so that its optimizer finds no gradient."""
            value = torch.zeros((), device=batch.x.device)
            if self._trains_classifiers(batch.epoch):
                for name in _CLASSIFIERS:
                    if name in learner.modules:
                        value = value + F.cross_entropy(learner.modules[name](batch.x).float(), batch.y)
            if self._trains_autoencoder(batch.epoch):
                corrupted = corruption(attacked, batch)
                value = value + perceptual(seen, autoencoder(corrupted), batch.x)
            return value

        return fit(learner, loss, data, training, draws, state)

    def deployed(self, state: State) -> nn.Module:
        """The pipeline; the classifier alone until its own epochs are over. Beside it, for attackers (`feature_pgd`),
        the same with the identity in place of the autoencoder's gradient."""
        classifier, epoch = deployed(state), state["epoch"]
        assert isinstance(epoch, int)
        if not self._trains_autoencoder(epoch - 1):
            return classifier
        weights, description = tensors(state, "autoencoder"), state["network"]
        assert isinstance(description, dict)
        channels = description["channels"]
        assert isinstance(channels, int)
        autoencoder = self._autoencoder(channels, 0)
        autoencoder.load_state_dict(weights)
        model = Pipeline(autoencoder.to(next(iter(weights.values())).device), classifier)
        model.eval().requires_grad_(False)
        return put_beside(model, AsIfUnchanged(model))

    def surface(self) -> Surface:
        """The gradient of the whole pipeline."""
        return Surface(losses=("cross_entropy", "margin", "scaled_cross_entropy"))

    @property
    def _attacks(self) -> bool:
        return self.corruption in ("fgsm", "pgd", "mixed")

    def _trains_classifiers(self, epoch: int) -> bool:
        return self.classifier_epochs is None or epoch < self.classifier_epochs

    def _trains_autoencoder(self, epoch: int) -> bool:
        return epoch >= (self.classifier_epochs or 0)

    def _autoencoder(self, channels: int, seed: int) -> Autoencoder:
        with seeded(seed, torch.device("cpu")):
            return Autoencoder(channels, self.width, self.depth, self.bottleneck, self.skip, self.residual)

    def _learner(self, network: Network, data: Data, training: Training, draws: Draws) -> Learner:
        """The classifier, the autoencoder, and another classifier where features are independent."""
        learner = new_learner(network, data, training, draws)
        autoencoder = self._autoencoder(data.channels, draws.fork("autoencoder").seed).to(data.device)
        modules: dict[str, nn.Module] = {"autoencoder": autoencoder}
        optimizers: dict[str, torch.optim.Optimizer] = {
            "autoencoder": torch.optim.Adam(
                autoencoder.parameters(), self.lr, weight_decay=self.weight_decay, foreach=True
            )
        }
        if self.features == "independent":
            bare = replace(training, start=None, inputs=())
            modules["independent"] = new_learner(network, data, bare, draws.fork("independent")).model
            optimizers["independent"] = new_optimizer(training, modules["independent"].parameters())
        return replace(learner, modules=learner.modules | modules, optimizers=learner.optimizers | optimizers)

    def _perceptual(self, network: nn.Module, data: Data) -> Perceptual:
        places = chosen(network, self.layers, self.stages)
        widths(network, places, torch.zeros(1, data.channels, data.size, data.size, device=data.device))
        weights = self.weights if isinstance(self.weights, Sequence) else (self.weights,) * len(places)
        if len(weights) != len(places):
            raise ValueError(f"weights: must be one number, or one for each of {len(places)} layers, got {weights!r}")
        return Perceptual(places, weights, self.pixel_weight, self.distance)

    def _corruption(self, threat: Threat | None) -> Corruption:
        if self._attacks and self.eps is None and threat is None:
            raise ValueError("eps: must be given where training.threat is not, got None")
        within = Threat(threat.norm if threat else "linf", self.eps) if self.eps is not None else threat
        return Corruption(self.corruption, self.std, self.steps, self.step_size, within)


_AT_LEAST_ZERO = ("pixel_weight", "std", "weight_decay")
