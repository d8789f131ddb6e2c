"""Learn2Perturb: noise on the network's maps, whose size is trained with the weights, and attacked images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.checks import at_least, one_of, positive
from attacks.draws import Draws
from attacks.pgd import PGD
from attacks.sources import drawing
from attacks.surface import Surface
from attacks.threat import Threat
from defenses.adversarial import refuse_beside
from defenses.data import Data
from defenses.fit import Batch, Loss, descend, fit
from defenses.learner import Learner, new_learner
from defenses.networks.registry import Network
from defenses.noise.feature_noise import GRANULARITIES
from defenses.noise.noisy import Noisy, new_noise
from defenses.noise.push import ANNEALINGS, lift, new_noise_optimizer, regularizer
from defenses.noise.sites import WHERE, sites
from defenses.state import Epoch, State, deployed, tensors
from defenses.training import Training

LABELS = ("true", "predicted")
EOT_DRAWS = 20  # as many as AutoAttack takes of a randomised model


@dataclass(frozen=True)
class Learn2Perturb:
    """Maps get Gaussian noise, in training and in use, with deviations that are learned. Jeddi, Shafiee, Karg,
    Scharfenberger, Wong 2020, arXiv 2003.01090.

    Each batch moves the deviations twice: first down the regularizer, `gamma` / tau times minus the sum of their
    square roots, which makes noise grow (tau by `annealing`, from the number of epochs with noise); then, together
    with the weights, down the cross-entropy of the noisy network, of which a share of `adversarial_weight` is that of
    images attacked by PGD. Their optimizer is SGD with Nesterov `momentum` at `lr_ratio` times the network's rate,
    without weight decay, one memory for both moves; in the end none is left below `floor`.

    `sites` says where noise is (`defenses/noise/sites.py`), `granularity` which elements share a deviation, `sigma`
    where all start (at `floor` if that is higher). `noise_delay` and `adversarial_delay` are epochs without noise and
    without attacks; the authors' 10 and 20 of 350 round to none in a short training, the default here.

    The attack is PGD on the noisy network, new noise at every step, away from the `labels` (true, or what the network
    says of the clean images); `step_size` is 2.5 eps / steps where None (the authors': 0.01 at eps 8/255, 7 steps),
    `eps` replaces the sweep's. Averaged weights (`training.ema`) are deployed with the deviations of the last step.
    Raises ValueError for a field out of range.
    """

    name: ClassVar[str] = "learn2perturb"
    uses_threat: ClassVar[bool] = True
    attacks_itself: ClassVar[bool] = True
    neutral: ClassVar[dict[str, Any] | None] = {"sites": "none", "adversarial_weight": 0.0}

    granularity: str = "element"
    sites: str = "blocks"
    sigma: float = 0.25
    floor: float = 0.01
    gamma: float = 1e-4
    annealing: str = "harmonic"
    lr_ratio: float = 1.0
    momentum: float = 0.9
    noise_delay: int = 0
    adversarial_delay: int = 0
    adversarial_weight: float = 0.5
    steps: int = 7
    step_size: float | None = None
    labels: str = "predicted"
    eps: float | None = None

    def __post_init__(self) -> None:
        one_of("granularity", self.granularity, GRANULARITIES)
        one_of("sites", self.sites, WHERE)
        one_of("annealing", self.annealing, ANNEALINGS)
        one_of("labels", self.labels, LABELS)
        positive("floor", self.floor)  # the square root has no slope at 0
        for field in ("sigma", "gamma", "lr_ratio"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"{field}: must be finite and >= 0, got {getattr(self, field)!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: must be in [0, 1), got {self.momentum!r}")
        if not 0 <= self.adversarial_weight <= 1:
            raise ValueError(f"adversarial_weight: must be in [0, 1], got {self.adversarial_weight!r}")
        at_least("noise_delay", self.noise_delay, 0)
        at_least("adversarial_delay", self.adversarial_delay, 0)
        at_least("steps", self.steps, 1)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        if self.eps is not None:
            Threat("linf", self.eps)

    @property
    def ready_epoch(self) -> int:
        """When noise and attacks have both begun."""
        return max(self._noise_begins or 0, self._attacks_begin or 0)

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """Raises ValueError when images are to be attacked and neither `eps` nor `training.threat` is given, and when
        noise or attacks would begin after the last epoch, or images come attacked already.
        """
        refuse_beside(self, training.adversarial)
        for field, begins in (("noise_delay", self._noise_begins), ("adversarial_delay", self._attacks_begin)):
            if begins is not None and begins >= training.epochs:
                raise ValueError(f"{field}: must be less than training.epochs, {training.epochs}, got {begins}")
        learner, noisy = self._learner(network, data, training, draws)
        threat = self._threat(training.threat) if self.adversarial_weight else None

        def loss(_network: nn.Module, batch: Batch) -> Tensor:
            noisy.is_on = self._is_noisy(batch.epoch)
            is_attacked = batch.epoch >= self.adversarial_delay
            return self._loss(noisy, batch, threat if is_attacked else None)

        return fit(learner, loss, data, training, draws, state, self._step)

    def deployed(self, state: State) -> nn.Module:
        """With noise where the last epoch had it."""
        network, description, epoch = deployed(state), state["network"], state["epoch"]
        assert isinstance(description, dict)
        assert isinstance(epoch, int)
        if not self._is_noisy(epoch - 1):
            return network
        channels, size = description["channels"], description["size"]
        assert isinstance(channels, int)
        assert isinstance(size, int)
        noisy = self._noisy(network, channels, size)
        deviations = tensors(state, "noise")
        noisy.noise.load_state_dict(deviations)
        noisy.noise.to(next(iter(deviations.values())).device)
        return noisy.eval().requires_grad_(False)

    def surface(self) -> Surface:
        return Surface(draws=1 if self.sites == "none" else EOT_DRAWS)

    @property
    def _noise_begins(self) -> int | None:
        return None if self.sites == "none" else self.noise_delay

    @property
    def _attacks_begin(self) -> int | None:
        return self.adversarial_delay if self.adversarial_weight else None

    def _is_noisy(self, epoch: int) -> bool:
        """Whether epoch number `epoch`, from 0, is trained with noise."""
        return self._noise_begins is not None and epoch >= self._noise_begins

    def _learner(self, network: Network, data: Data, training: Training, draws: Draws) -> tuple[Learner, Noisy]:
        """The network's, with the noise and its optimizer beside; and the network under that noise."""
        learner = new_learner(network, data, training, draws)
        noisy = self._noisy(learner.model, data.channels, data.size)
        if not noisy.sites:
            return learner, noisy
        noisy.noise.to(data.device)
        optimizer = new_noise_optimizer(noisy.noise, self.lr_ratio * training.lr, self.momentum)
        modules, optimizers = learner.modules | {"noise": noisy.noise}, learner.optimizers | {"noise": optimizer}
        return replace(learner, modules=modules, optimizers=optimizers), noisy

    def _noisy(self, network: nn.Module, channels: int, size: int) -> Noisy:
        found = sites(network, channels, size, self.sites)
        return Noisy(network, found, new_noise(found, self.granularity, max(self.sigma, self.floor)))

    def _threat(self, threat: Threat | None) -> Threat:
        if self.eps is not None:
            return Threat(threat.norm if threat else "linf", self.eps)
        if threat is None:
            raise ValueError("eps: must be given where training.threat is not, got None")
        return threat

    def _loss(self, noisy: Noisy, batch: Batch, threat: Threat | None) -> Tensor:
        """Of the clean images, and of attacked ones where there is a threat."""
        with drawing(noisy, batch.draws.fork("clean")):
            logits = noisy(batch.x).float()
        clean = F.cross_entropy(logits, batch.y)
        if threat is None:
            return clean
        target = batch.y if self.labels == "true" else logits.detach().argmax(1)
        attack = PGD(self.steps, step_size=self.step_size, keep="last")
        adversarial = attack(noisy, batch.x, target, threat, batch.draws.fork(self.name))
        with drawing(noisy, batch.draws.fork("attacked")):
            attacked = F.cross_entropy(noisy(adversarial).float(), batch.y)
        return (1 - self.adversarial_weight) * clean + self.adversarial_weight * attacked

    def _step(self, learner: Learner, loss: Loss, batch: Batch, training: Training) -> Tensor:
        """Down the regularizer with the noise alone, then down the loss with everything."""
        if not self._is_noisy(batch.epoch):
            return descend(learner, loss, batch, training)
        noise, optimizer = learner.modules["noise"], learner.optimizers["noise"]
        if self.gamma:  # without it no step at all: one of gradient 0 would move by momentum
            optimizer.zero_grad()
            tau = ANNEALINGS[self.annealing](batch.epoch - self.noise_delay)
            torch.autograd.backward(self.gamma / tau * regularizer(noise))
            optimizer.step()
        before = descend(learner, loss, batch, training)
        lift(noise, self.floor)
        return before
