"""Templates: images whose labels are known, and between whose features others are interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.draws import Draws
from defenses.data import Data
from defenses.interpolation.graph import nearest

SAMPLINGS = ("random", "balanced", "all")


@dataclass(frozen=True)
class Neighbourhood:
    """Each point has `k` neighbours; that of `rank` says how far is far. `weighting` as in `graph.WEIGHTINGS`."""

    k: int
    rank: int
    weighting: str


@dataclass(frozen=True, eq=False)
class Templates:
    """`features` [M, D], `labels` int64 [M] in 0..classes-1, `ids` [M] of the images.

    `lengths` float64 [M, k]: squared distances of each to its nearest others, nearest first.
    """

    features: Tensor
    labels: Tensor
    ids: Tensor
    classes: int
    lengths: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int, k: int, ids: Tensor | None = None) -> Templates:
        ids = torch.arange(len(labels), device=labels.device) if ids is None else ids
        return cls(features, labels, ids, classes, nearest(features, features, k, ids, ids)[0])

    def __len__(self) -> int:
        return len(self.labels)

    def one_hot(self) -> Tensor:
        """float64 [M, K]"""
        return torch.nn.functional.one_hot(self.labels, self.classes).double()


def template_rows(data: Data, size: int, sampling: str, draws: Draws, number: int) -> Tensor:
    """The rows of the training images that are template number `number`, sorted. -> int64 [size]

    "balanced" takes as many of each class as there are, up to an equal share. Raises ValueError where they are all of
    one class, between which nothing can be interpolated.
    """
    order = torch.randperm(len(data), generator=draws.generator("template", number))
    if sampling == "balanced":
        order = order[_rank_within_class(data.labels.cpu()[order]).argsort(stable=True)]
    rows = order[:size].sort().values.to(data.device)
    classes = data.labels[rows].bincount().nonzero()
    if len(classes) < 2:
        raise ValueError(f"template: must hold two classes or more, got {size} images of class {int(classes[0])} alone")
    return rows


def _rank_within_class(labels: Tensor) -> Tensor:
    """How many of the same label come before each. [N] -> [N]"""
    found = torch.nn.functional.one_hot(labels).cumsum(0) - 1
    return found.gather(1, labels[:, None])[:, 0]
