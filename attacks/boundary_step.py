"""The shortest move to the nearest of several boundaries, were the model linear: the step of DeepFool."""

from __future__ import annotations

import torch
from torch import Tensor

_DUAL = {"l2": 2.0, "linf": 1.0}  # the order of the norm that a slope is measured in
_LEAST_SLOPE = 1e-30


def boundary_step(gaps: Tensor, slopes: Tensor, norm: str, beyond: float = 0.0) -> Tensor:
    """The shortest move, in `norm`, to where the nearest of the gaps closes. [B, M], [B, M, C, H, W] -> [B, C, H, W]

    `gaps` are other logits less the true one, negative while the example is right, and `slopes` their gradients. With
    linear gaps the boundary of class k is |gap_k| / ||slope_k|| away, in the dual norm. Differentiable in both
    arguments, so that a network may be trained through it. A row whose slopes are all 0 does not move.
    """
    flat = slopes.flatten(2)  # [B, M, D]
    steepness = torch.linalg.vector_norm(flat, ord=_DUAL[norm], dim=2).clamp(min=_LEAST_SLOPE)
    distance = gaps.abs() / steepness
    nearest = distance.argmin(1, keepdim=True)
    distance, steepness = distance.gather(1, nearest), steepness.gather(1, nearest)
    slope = flat.gather(1, nearest[:, :, None].expand(-1, -1, flat.shape[2])).squeeze(1)
    direction = slope / steepness if norm == "l2" else slope.sign()
    is_flat = steepness <= _LEAST_SLOPE
    return torch.where(is_flat, 0.0, (distance + beyond) * direction).view(-1, *slopes.shape[2:])
