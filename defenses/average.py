"""Averaged weights: an exponential moving average of all a network's tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Follows `model` with `decay` per step; off, and without tensors, at decay 0.

    Batch norm's running statistics are averaged as the weights are; counters are copied. The decay is
    min(decay, (1 + step) / (10 + step)), so that the first, random weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._model = model.state_dict() if decay else {}  # the model's own tensors, not copies
        self.tensors = {key: value.clone() for key, value in self._model.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """After optimizer step number `step`, counted from 0."""
        if not self._decay:
            return
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        moving = [key for key, value in self._model.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.tensors[key] for key in moving], [self._model[key] for key in moving], weight)
        for key in self._model.keys() - set(moving):
            self.tensors[key].copy_(self._model[key])

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Raises ValueError where averages are asked for and there are none, or the other way round."""
        if self.tensors.keys() != tensors.keys():
            raise ValueError(f"ema: must be on or off as in the state gone on from, got {self._decay}")
        for key, value in self.tensors.items():
            value.copy_(tensors[key])
