"""What an attacker who knows a defense knows about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from attacks.checks import at_least, one_of
from attacks.losses import LOSSES


@dataclass(frozen=True)
class Surface:
    """How to attack a model whose defense is known.

    `draws`: forward passes over which a stochastic model's gradient is averaged (EOT); 1 says that the
    model is deterministic. `losses`: names in `attacks.LOSSES` that are worth trying, best first.
    `backward`: None where the true gradient is useful, else a differentiable stand-in whose gradient
    replaces that of the model in the backward pass (BPDA; Athalye, Carlini, Wagner 2018, arXiv 1802.00420).
    Raises ValueError for fewer than one draw or an unknown loss.
    """

    draws: int = 1
    losses: tuple[str, ...] = ("cross_entropy", "margin")
    backward: nn.Module | Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        at_least("draws", self.draws, 1)
        for loss in self.losses:
            one_of("losses", loss, LOSSES)
