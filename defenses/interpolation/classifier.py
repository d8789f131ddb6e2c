"""What WNLL deploys: a network whose scores are interpolated between templates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from defenses.inputs.front import standing_in
from defenses.interpolation.buffered import Buffered
from defenses.interpolation.inductive import inductive
from defenses.interpolation.smooth import smooth_scores
from defenses.interpolation.templates import Neighbourhood, Templates
from defenses.interpolation.transductive import transductive

Mode = Callable[[Tensor, Templates, Neighbourhood, Tensor | None], Tensor]  # features [B, D], ids [B] -> [B, K]
MODES: dict[str, Mode] = {"inductive": inductive, "transductive": transductive}
SCALE = 10.0
"""Scores are in [0, 1], too near each other for a softmax: logits are so many times as large."""

_LEAN = 0.1


class Interpolating(nn.Module):
    """Images -> SCALE times the interpolated scores, the mean over all templates.

    Their gradient is that through the solution, plus a tenth of that of `smooth_scores`: where an image has neighbours
    of one class alone the true one is exactly 0, which hides it from an attacker, and protects nobody.
    """

    features: Tensor
    labels: Tensor
    lengths: Tensor

    def __init__(
        self, network: Buffered, features: Tensor, labels: Tensor, classes: int, near: Neighbourhood, mode: str
    ) -> None:
        """`features` [R, M, D] and `labels` [R, M] of R templates."""
        super().__init__()
        self.network, self.classes, self.near, self.mode = network, classes, near, mode
        lengths = [Templates.of(*each, classes, near.k).lengths for each in zip(features, labels, strict=True)]
        for name, tensor in (("features", features), ("labels", labels), ("lengths", torch.stack(lengths))):
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        features = self.network.features(x)
        return self.mean_scores(features).float() * SCALE

    def mean_scores(self, features: Tensor) -> Tensor:
        """[B, D] -> float64 [B, K]"""
        return torch.stack([self.scores(features, number) for number in range(len(self.features))]).mean(0)

    def scores(self, features: Tensor, number: int) -> Tensor:
        """By one of the templates. [B, D] -> float64 [B, K]"""
        templates = self.templates(number)
        found = MODES[self.mode](features, templates, self.near, None)
        if not found.requires_grad:
            return found
        smooth = smooth_scores(features, templates, self.near)
        return found + _LEAN * (smooth - smooth.detach())

    def templates(self, number: int) -> Templates:
        ids = torch.arange(len(self.labels[number]), device=self.labels.device)
        return Templates(self.features[number], self.labels[number], ids, self.classes, self.lengths[number])


class Drawing(Interpolating):
    """The same, by one template per image and pass, drawn from what it is lent (`attacks.sources.drawing`).

    Called without, every pass has draws of its own, by the row of the batch and the number of the pass.
    """

    draws: Draws | None = None
    passes = 0

    def mean_scores(self, features: Tensor) -> Tensor:
        draws = self.draws
        if draws is None:
            self.passes += 1
            draws = Draws(self.passes, torch.arange(len(features), device=features.device))
        drawn = draws.integers(len(self.features))
        rows = [(drawn == number).nonzero()[:, 0] for number in range(len(self.features))]
        scores = [self.scores(features[mine], number) for number, mine in enumerate(rows) if len(mine)]
        return torch.cat(scores)[torch.cat(rows).argsort()]


class Smooth(nn.Module):
    """Images -> `smooth_scores`, the mean over all templates: what `feature_pgd` follows."""

    def __init__(self, model: Interpolating) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        with standing_in(self.model):
            features = self.model.network.features(x)
        numbers = range(len(self.model.features))
        found = [smooth_scores(features, self.model.templates(number), self.model.near) for number in numbers]
        return torch.stack(found).mean(0).float()
