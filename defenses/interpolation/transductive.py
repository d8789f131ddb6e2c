"""Scores of a whole batch at once: its images are neighbours of each other."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.interpolation.graph import edge_weights, nearest
from defenses.interpolation.solve import harmonic
from defenses.interpolation.templates import Neighbourhood, Templates


def transductive(features: Tensor, templates: Templates, near: Neighbourhood, ids: Tensor | None = None) -> Tensor:
    """The weighted nonlocal Laplacian's solution on the graph of templates and batch. [B, D] -> float64 [B, K]

    For each x of the batch, over all nodes y of X and the templates among them (Shi, Osher, Zhu 2017):
    sum_y (w(x, y) + w(y, x)) (u(x) - u(y)) + (|X| / M - 1) sum_templates w(y, x) (u(x) - u(y)) = 0.
    A row's scores depend on the rest of the batch. `ids` bar an image from itself among the templates.
    """
    count, known = len(features), len(templates)
    mine = -1 - torch.arange(count, device=features.device) if ids is None else ids
    nodes = torch.cat([features, templates.features])  # the unknown first
    everyone = torch.cat([mine, templates.ids])
    _, neighbours = nearest(nodes, nodes, near.k, everyone, everyone)
    source = torch.arange(len(nodes), device=features.device)[:, None].expand_as(neighbours)
    scale = _squared(nodes, source[:, near.rank - 1], neighbours[:, near.rank - 1])
    is_free = (source < count) | (neighbours < count)  # an edge between two templates decides nothing
    source, target = source[is_free], neighbours[is_free]
    weights = edge_weights(_squared(nodes, source, target), scale.index_select(0, source), near.weighting)

    is_between = (source < count) & (target < count)
    unknown, template = torch.minimum(source, target), torch.maximum(source, target) - count
    pull = weights * torch.where(source >= count, len(nodes) / known, 1.0)
    flat = unknown * templates.classes + templates.labels[template.clamp(min=0)]
    anchored = pull.new_zeros(count * templates.classes).index_add(0, flat[~is_between], pull[~is_between])
    return harmonic(
        weights[is_between], source[is_between], target[is_between], anchored.view(count, templates.classes)
    )


def _squared(nodes: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """[E], [E] -> [E]"""
    return (nodes.index_select(0, source) - nodes.index_select(0, target)).square().sum(1)
