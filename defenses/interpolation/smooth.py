"""A smooth relative of the interpolation, for attackers: its gradient is nowhere 0."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.interpolation.graph import nearest, squared_distances
from defenses.interpolation.templates import Neighbourhood, Templates

_ABSENT = -1e4  # the score of a class that no template has


def smooth_scores(features: Tensor, templates: Templates, near: Neighbourhood) -> Tensor:
    """The logarithm of what all templates of a class weigh for x, nearest or not: softmax gives kernel regression.

    sigma is x's own and held constant. Where all neighbours of an image are of one class the interpolation is exactly
    one-hot and its gradient exactly 0; here every template pulls. [B, D] -> float64 [B, K]
    """
    nobody = torch.full_like(templates.labels[:1], -1).expand(len(features))
    lengths, _ = nearest(features, templates.features, near.rank, nobody, templates.ids)
    scale = lengths[:, -1:].clamp(min=torch.finfo(torch.float32).tiny)
    weights = -squared_distances(features, templates.features) / scale  # [B, M]
    scores = []
    for each in range(templates.classes):
        mine = templates.labels == each
        absent = weights.new_full((len(features),), _ABSENT)
        scores.append(weights[:, mine].logsumexp(1) if bool(mine.any()) else absent)
    return torch.stack(scores, 1)
