"""Looks at a model that cost passes of their own, to see whether its figures can be believed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.draws import Draws
from attacks.fgsm import FGSM
from attacks.losses import LOSSES
from attacks.noise import Noise
from attacks.pgd import PGD
from attacks.queries import querying
from attacks.surface import Surface, knowing
from attacks.threat import Threat
from orchestrator.doubts import Doubt, hidden_gradients, noise_wins, weaker_wins
from orchestrator.scoring import Scorer

CHEAP_EXAMPLES = 64
FULL_EXAMPLES = 100
STEPS = 20
NOISE_POINTS = 100


class Probes:
    """A model, the images [n, C, H, W] it is judged on, which of them it is right about, and what is known of it."""

    def __init__(self, scorer: Scorer, images: Tensor, is_right: Tensor, surface: Surface) -> None:
        self.scorer, self.images, self.surface = scorer, images, surface
        self.right = is_right.nonzero().flatten()  # rows

    def cheap(self) -> Iterator[Doubt | None]:
        """One pass each way (one for each draw of the surface) on the first few examples."""
        loss = self.surface.losses[0]
        looked = self.scorer.batching.each(self.right[:CHEAP_EXAMPLES], lambda rows: self._is_zero(rows, loss))
        if looked:
            interrupted, zero = zip(*looked, strict=True)
            yield hidden_gradients(all(interrupted), torch.cat(zero), loss)

    def full(self, threat: Threat, robust: Tensor) -> Iterator[Doubt | None]:
        """Small attacks beside those of the evaluation. bool [n]

        On the first examples it is right about: one step against many of the same loss, and the loss of logits as they
        are against that of logits brought to one scale. On the first `robust` ones: random points.
        """
        rows = self.right[:FULL_EXAMPLES]
        if not len(rows):
            return
        many = PGD(STEPS, random_start=False)
        by_many, by_one = self._fooled(many, rows, threat), self._fooled(FGSM(), rows, threat)
        yield weaker_wins("one_step_beats_many", "one step", f"{STEPS} steps", by_one, by_many)
        by_scaled = self._fooled(PGD(STEPS, random_start=False, loss="scaled_cross_entropy"), rows, threat)
        yield weaker_wins(
            "logit_scale", f"{STEPS} steps on logits of one scale", "on logits as they are", by_scaled, by_many
        )
        left = robust.nonzero().flatten()[:FULL_EXAMPLES]
        by_noise = self._fooled(Noise(NOISE_POINTS), left, threat)
        yield noise_wins(int(by_noise.sum()), NOISE_POINTS, len(left))

    def _is_zero(self, rows: Tensor, loss: str) -> tuple[bool, Tensor]:
        x, y, draws = self._at(rows)
        x, total = x.requires_grad_(), torch.zeros_like(x)
        is_interrupted = True
        with knowing(self.scorer.model, self.surface), querying(self.scorer.model) as queries, torch.enable_grad():
            for look in range(queries.looks):
                value = LOSSES[loss](queries.differentiable(x, draws.fork("gradient", look)), y).sum()
                if value.requires_grad:
                    is_interrupted = False
                    (gradient,) = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)
                    total += gradient.nan_to_num().abs()  # attacks, too, take NaN for no slope
        return is_interrupted, (total == 0).flatten(1).all(1).cpu()

    def _fooled(self, attack: Attack, rows: Tensor, threat: Threat) -> Tensor:
        """Which of the examples an attack fools, by the mean of as many looks as it takes itself. bool [m]"""

        def fooled(part: Tensor) -> Tensor:
            x, y, draws = self._at(part)
            draws = draws.fork(attack.name)
            with knowing(self.scorer.model, self.surface):
                adversarial = attack(self.scorer.model, x, y, threat, draws)
                with querying(self.scorer.model) as queries:
                    return (queries.logits(adversarial, draws.fork("verdict")).argmax(1) != y).cpu()

        parts = self.scorer.batching.each(rows, fooled)
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)

    def _at(self, rows: Tensor) -> tuple[Tensor, Tensor, Draws]:
        device = self.scorer.device
        draws = self.scorer.draws.select(rows).fork("doubts").to(device)
        return self.images[rows].to(device), self.scorer.labels[rows].to(device), draws
