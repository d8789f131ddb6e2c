"""Training on attacked images, beside any defense: which attack, how far, and which examples of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.draws import Draws
from attacks.threat import Threat


@dataclass(frozen=True)
class Adversarial:
    """`share` of each batch, to the nearest whole number of images, is learned from under `attack`; the rest clean.

    Which examples these are is drawn anew in each epoch, keyed by example. The attack asks the network as it is then,
    in eval mode. `eps` replaces the sweep's; of [low, high] one is drawn for each batch. Where no threat is given
    either, the norm is linf. Raises ValueError for a field out of range.
    """

    attack: Attack
    share: float = 1.0
    eps: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share: must be in (0, 1], got {self.share!r}")
        if self.eps is None:
            return
        ends = tuple(self.eps) if isinstance(self.eps, Sequence) else (self.eps, self.eps)
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] < math.inf:
            seen = list(self.eps) if isinstance(self.eps, Sequence) else self.eps
            raise ValueError(f"eps: must be finite and >= 0, or [low, high] with 0 <= low <= high, got {seen!r}")
        if isinstance(self.eps, Sequence):
            object.__setattr__(self, "eps", ends)

    def refuse_no_threat(self, threat: Threat | None) -> None:
        """Raises ValueError where nobody says how far images may be moved."""
        if self.eps is None and threat is None:
            raise ValueError("adversarial: eps must be given where training.threat is not, got None")

    def chosen(self, draws: Draws) -> Tensor | None:
        """Which examples of a batch are attacked. -> bool [B], None: all"""
        if self.share == 1:
            return None
        order = draws.fork("attacked share").uniform(1).flatten().argsort(stable=True)
        is_chosen = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        is_chosen[order[: round(self.share * len(order))]] = True
        return is_chosen

    def threat(self, threat: Threat | None, draws: Draws, batch: int) -> Threat:
        """What the attack may do in batch number `batch`: the same in all its parts."""
        if self.eps is None:
            assert threat is not None
            return threat
        norm = threat.norm if threat else "linf"
        if not isinstance(self.eps, Sequence):
            return Threat(norm, self.eps)
        low, high = self.eps
        drawn = float(torch.rand((), generator=draws.generator("attacked eps", batch)))
        return Threat(norm, low + (high - low) * drawn)


def refuse_beside(defense: Any, adversarial: Adversarial | None) -> None:
    """Raises ValueError where a defense that attacks its images itself would be handed attacked ones."""
    if adversarial is not None and getattr(defense, "attacks_itself", False):
        raise ValueError(
            f"adversarial: {defense.name} attacks its images itself, by settings of its own, and these would be "
            "attacked twice: leave it out, or write adversarial: none in the defense's block"
        )
