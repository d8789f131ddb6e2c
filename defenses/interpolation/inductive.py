"""Scores of images one by one: each is the only unknown of its graph."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.interpolation.graph import edge_weights, parted, squared_distances
from defenses.interpolation.templates import Neighbourhood, Templates


def inductive(features: Tensor, templates: Templates, near: Neighbourhood, ids: Tensor | None = None) -> Tensor:
    """The weighted nonlocal Laplacian's solution for each row alone with the templates. [B, D] -> float64 [B, K]

    With one unknown x the equation solves itself: the mean of the labels, each weighed by w(x, y) + (1 + 1 / M) w(y, x)
    over the M templates y. w(x, y) is that of an edge from x to one of its k nearest templates; w(y, x) that of an edge
    back, where x is among the k nearest of y. Which edges there are is found without a gradient, their weights have
    one, that of both sigmas included. `ids` bar an image from itself among the templates.
    """
    columns, to, back = _edges(features, templates, near.k, ids)
    squared = (features[:, None] - templates.features[columns]).square().sum(2)  # [B, E]
    own = torch.where(to, squared, torch.inf).sort(1).values[:, near.rank - 1, None]  # x's sigma, squared
    to_weight = edge_weights(squared, own, near.weighting) * to
    back_weight = edge_weights(squared, _scales(squared, templates.lengths[columns], near.rank), near.weighting) * back
    weight = to_weight + (1 + 1 / len(templates)) * back_weight
    return torch.einsum("be,bek->bk", weight, templates.one_hot()[columns]) / weight.sum(1, keepdim=True)


def _scales(squared: Tensor, lengths: Tensor, rank: int) -> Tensor:
    """The squared sigmas of templates now that an image at distance `squared` is among their neighbours.

    The one of `rank` among the others, unless the image is nearer and moves it on. [B, E], [B, E, k] -> [B, E]
    """
    before = lengths[:, :, rank - 2] if rank > 1 else torch.zeros_like(lengths[:, :, 0])
    at = lengths[:, :, rank - 1]
    squared = squared.double()
    return torch.where(squared < at, torch.maximum(squared, before), at)


@torch.no_grad()
def _edges(features: Tensor, templates: Templates, k: int, ids: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The templates that have an edge with each row, filled up to one number E; from it, and to it. -> [B, E] each"""
    mine = torch.full_like(templates.labels[:1], -1).expand(len(features)) if ids is None else ids
    to, back = [], []
    for rows, own in zip(*parted(len(templates), features, mine), strict=True):
        squared = squared_distances(rows, templates.features)
        if ids is not None:
            squared.masked_fill_(own[:, None] == templates.ids, torch.inf)
        to.append(torch.zeros_like(squared, dtype=torch.bool).scatter_(1, squared.topk(k, largest=False).indices, True))
        back.append(squared < templates.lengths[:, -1])
    is_to, is_back = torch.cat(to), torch.cat(back)
    is_edge = is_to | is_back
    columns = is_edge.byte().topk(int(is_edge.sum(1).max()), dim=1).indices
    return columns, is_to.gather(1, columns), is_back.gather(1, columns)
