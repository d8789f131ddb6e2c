"""A linear classifier of two classes, whose distance to the boundary is a formula in every norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.draws import Draws

SHAPE = (3, 4, 4)


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """Images that lie equally far from the boundary, on both sides of it, so near it that the box is never met."""

    model: nn.Module
    x: Tensor  # [B, 3, 4, 4] in [0.3, 0.7]
    y: Tensor
    draws: Draws
    distance: dict[str, float]  # by norm


def linear_problem(examples: int = 12, gap: float = 0.2) -> LinearProblem:
    """logit_1 - logit_0 = w.x + b is `gap` in size at every image; the nearest point where it is 0 lies
    gap / |w|_1 away in linf, gap / |w|_2 in l2 and gap / |w|_inf in l1 (the dual norms)."""
    draws = Draws(11, torch.arange(examples))
    weight = Draws(12, torch.arange(1)).normal(48)[0]
    weight[7] = 3.0  # the steepest pixel stands out
    y = torch.arange(examples) % 2
    images = draws.uniform(48, low=0.45, high=0.55)
    wanted = gap * (2 * y - 1).float()
    offset = -0.5 * weight.sum()
    images = images + ((wanted - images @ weight - offset) / weight.square().sum())[:, None] * weight
    assert images.min() > 0.3, "too near the box"
    assert images.max() < 0.7, "too near the box"
    layer = nn.Linear(48, 2)
    model = nn.Sequential(nn.Flatten(), layer)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weight, weight]) / 2)
        layer.bias.copy_(torch.stack([-offset, offset]) / 2)
    distance = {
        "linf": gap / weight.abs().sum().item(),
        "l2": gap / weight.norm().item(),
        "l1": gap / weight.abs().max().item(),
    }
    return LinearProblem(model, images.view(-1, *SHAPE), y, draws, distance)
