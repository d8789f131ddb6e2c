"""The interpolation of WNLL written out, node by node, in numpy and float64."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defenses.interpolation.templates import Neighbourhood, Templates

CLASSES = 3


def points(count: int, seed: int, dimensions: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64)


def templates(count: int, k: int, seed: int = 0) -> Templates:
    """Labels that go with the first coordinate, but for some."""
    features = points(count, seed)
    labels = (features[:, 0] * 1.5 + 0.3 * features[:, 1]).round().long().clamp(-1, 1) + 1
    return Templates.of(features, labels, CLASSES, k)


def weights(nodes: NDArray[np.float64], near: Neighbourhood) -> NDArray[np.float64]:
    """w(x, y) of every pair: 0 where y is not one of the k nearest of x."""
    power = {"gaussian": 2, "quartic": 4}[near.weighting]
    found = np.zeros((len(nodes), len(nodes)))
    for x in range(len(nodes)):
        distance = np.sqrt(((nodes - nodes[x]) ** 2).sum(1))
        others = [y for y in np.argsort(distance) if y != x][: near.k]
        sigma = distance[others[near.rank - 1]]
        for y in others:
            found[x, y] = np.exp(-((distance[y] / sigma) ** power))
    return found


def solved(unknown: Tensor, given: Templates, near: Neighbourhood) -> Tensor:
    """The equation of all unknown nodes at once, as one dense matrix. [B, D] -> [B, K]"""
    nodes = torch.cat([unknown, given.features]).numpy()
    w, free, known = weights(nodes, near), len(unknown), len(given)
    factor = len(nodes) / known - 1
    matrix, right = np.zeros((free, free)), np.zeros((free, CLASSES))
    for x in range(free):
        for y in range(len(nodes)):
            pull = w[x, y] + w[y, x] + (factor * w[y, x] if y >= free else 0.0)
            matrix[x, x] += pull
            if y < free:
                matrix[x, y] -= pull
            else:
                right[x, given.labels[y - free]] += pull
    return torch.from_numpy(np.linalg.solve(matrix, right))
