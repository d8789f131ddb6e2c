"""What a judge must be handed: images in [0, 1], labels that are classes, a model that gives logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_images(images: Any, labels: Any) -> None:
    """Raises ValueError where they are not float [n, C, H, W] in [0, 1] and whole numbers [n] from 0."""
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name}: must be a torch tensor, got {type(given).__name__}; torch.as_tensor makes one")
    seen = f"{images.dtype} {list(images.shape)}"
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        hint = "; for 8-bit images: images.float() / 255" if images.dtype in _WHOLE else ""
        raise ValueError(f"images: must be float [n, C, H, W] with n > 0, got {seen}{hint}")
    if labels.shape != images.shape[:1] or labels.dtype not in _WHOLE:
        raise ValueError(f"labels: must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}")
    if images.isnan().any():
        row = int(images.isnan().flatten(1).any(1).int().argmax())
        raise ValueError(f"images: must be in [0, 1], got NaN in image {row}")
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images: must be in [0, 1], got values from {low:.4g} to {high:.4g}{_advice(low, high)}")
    if labels.min() < 0:
        raise ValueError(f"labels: must be >= 0, got {int(labels.min())} at row {int(labels.argmin())}")


def check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: must be a torch.nn.Module, got {type(model).__name__}")


def check_logits(logits: Any, labels: Tensor, images: int) -> None:
    """Raises ValueError where the first answer of a model is not [n, K], with a class for every label, and finite."""
    most = int(labels.max())
    if not isinstance(logits, Tensor):
        raise ValueError(f"the model must give logits [n, K], a tensor, got {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != images or logits.shape[1] <= most:
        row = int(labels.argmax())
        raise ValueError(
            f"the model must give logits [n, K] with K > {most} (the largest label, at row {row}), "
            f"got {list(logits.shape)} for {images} images"
        )
    check_finite(logits)


def check_finite(logits: Tensor) -> None:
    """Raises ValueError, with how many rows are not finite."""
    is_bad = ~logits.isfinite().all(1)
    if is_bad.any():
        raise ValueError(f"the model's logits are not finite for {int(is_bad.sum())} of {len(logits)} images")


def _advice(low: float, high: float) -> str:
    if low >= 0 and 1 < high <= 255:
        return "; did you mean images / 255?"
    return "; a normalisation belongs into the model, as its first layer" if -20 < low < 0 else ""
