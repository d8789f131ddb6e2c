"""Prototype conformity: how near features lie to the prototype of their class, and how far from all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from defenses.features import vectors
from defenses.seeding import seeded

DISTANCES = ("squared", "l2")


@dataclass(frozen=True)
class Weights:
    """How much each distance counts; `apart`, between prototypes, in units of `separation`."""

    proximity: float
    separation: float
    apart: float
    distance: str


def conformity(features: Tensor, y: Tensor, attracting: Tensor, repelling: Tensor, weights: Weights) -> Tensor:
    """The loss of each example, below zero where separation outweighs. [B, D], [B], [K, D], [K, D] -> [B]

    With d the distance, w `attracting`, v `repelling`, and a mean over the K - 1 classes j other than y:
    proximity d(f, w_y) - separation mean_j (d(f, v_j) + apart d(w_y, w_j)).
    """
    loss = features.new_zeros(len(features))
    if weights.proximity:
        own = distances(features, attracting, weights.distance).gather(1, y[:, None])[:, 0]
        loss = loss + weights.proximity * own
    if weights.separation:
        loss = loss - weights.separation * _of_others(distances(features, repelling, weights.distance), y)
    if weights.separation and weights.apart:
        between = distances(attracting, attracting, weights.distance)[y]  # [B, K]
        loss = loss - weights.separation * weights.apart * _of_others(between, y)
    return loss


def distances(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Each row of `a` to each row of `b`; at distance 0 the gradient is 0. [A, D], [B, D] -> [A, B]"""
    found = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return found.square() if distance == "squared" else found


class Prototypes(nn.Module):
    """For each supervised stage the prototypes of all classes and, where wanted, an auxiliary branch before them.

    A branch is a linear map to `branch` units (0: none). Prototypes are normal, times `scale`. Where they are shared,
    the ones that attract also repel.
    """

    def __init__(
        self, widths: Sequence[int], classes: int, branch: int, scale: float, is_shared: bool, draws: Draws
    ) -> None:
        super().__init__()
        with seeded(draws.fork("branches").seed, torch.device("cpu")):
            self.branches = nn.ModuleList(nn.Linear(width, branch) if branch else nn.Identity() for width in widths)

        def drawn(kind: str) -> nn.ParameterList:
            sizes = [branch or width for width in widths]
            sources = [draws.generator(kind, stage) for stage in range(len(sizes))]
            return nn.ParameterList(
                scale * torch.randn(classes, size, generator=source)
                for size, source in zip(sizes, sources, strict=True)
            )

        self.attracting = drawn("attracting")
        self.repelling = None if is_shared else drawn("repelling")

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Prototypes:
        """Those whose `state_dict` this is. Raises KeyError where it is not."""
        kinds = [key.partition(".")[0] for key in tensors]
        stages, (classes, size) = kinds.count("attracting"), tensors["attracting.0"].shape
        branch = size if "branches" in kinds else 0
        sized = "branches.{}.weight" if branch else "attracting.{}"
        widths = [tensors[sized.format(stage)].shape[1] for stage in range(stages)]
        made = cls(widths, classes, branch, 1.0, "repelling" not in kinds, Draws(0, torch.arange(1)))
        made.load_state_dict(tensors)
        return made

    def scores(self, stages: Sequence[Tensor], distance: str) -> Tensor:
        """Minus the distances to the prototypes that attract, summed over the stages. [B, ...] each -> [B, K]"""
        found = [
            distances(branch(vectors(features)).float(), attracting, distance)
            for features, branch, attracting in zip(stages, self.branches, self.attracting, strict=True)
        ]
        return -torch.stack(found).sum(0)

    def forward(self, stages: Sequence[Tensor], y: Tensor, weights: Weights) -> Tensor:
        """The loss of each example, summed over the stages. [B, ...] each, [B] -> [B]"""
        losses = [
            conformity(branch(vectors(features)).float(), y, attracting, repelling, weights)
            for features, branch, attracting, repelling in zip(
                stages, self.branches, self.attracting, self.repelling or self.attracting, strict=True
            )
        ]
        return torch.stack(losses).sum(0)


def _of_others(distances: Tensor, y: Tensor) -> Tensor:
    """The mean over all classes but the true one. [B, K], [B] -> [B]"""
    own = distances.gather(1, y[:, None])[:, 0]
    return (distances.sum(1) - own) / (distances.shape[1] - 1)
