"""What an attack costs at most: its passes through a model that it cannot fool."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks import ATTACKS, Draws, Threat
from orchestrator.build import make
from orchestrator.passes import counted

MOST_CALLS = 1500  # of the model; then it is enough to say that it is more
_IMAGES, _SIZE, _CLASSES = 2, 8, 10


def most_passes(attack: Mapping[str, Any], threat: Threat) -> tuple[int, int] | None:
    """Forward and backward passes per attacked image where every one survives; None where that is more than many.

    None also for an attack that takes no such model. `attack` is a normalised block.
    """
    return _counted(json.dumps(dict(attack), sort_keys=True), threat)


@functools.lru_cache(maxsize=256)
def _counted(block: str, threat: Threat) -> tuple[int, int] | None:
    model, x = _Unmoved(), torch.full((_IMAGES, 1, _SIZE, _SIZE), 0.5)
    with torch.random.fork_rng(devices=[]), counted(model) as passes:
        try:
            make(ATTACKS, json.loads(block))(
                model, x, torch.zeros(_IMAGES, dtype=torch.int64), threat, Draws(0, torch.arange(_IMAGES))
            )
        except (RuntimeError, ValueError, TypeError, AttributeError):
            return None
    return round(passes.forward / _IMAGES), round(passes.backward / _IMAGES)


class _Unmoved(nn.Module):
    """Says class 0 whatever it sees, with another gradient each time: no attack comes round to a point."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, _CLASSES * _SIZE**2).reshape(_CLASSES, -1).cos())
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 8, 8] -> [B, 10]"""
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise RuntimeError("enough")
        turned = torch.randn(_SIZE**2, generator=torch.Generator().manual_seed(self.calls))
        logits = 1e-3 * x.flatten(1) @ (self.weight * turned).T
        return logits + 8 * torch.eye(_CLASSES)[0]  # more, and its gradient would round to 0
