"""An attack through a part of a model that has no useful gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from attacks.attack import Attack
from attacks.draws import Draws
from attacks.surface import knowing, surface_of
from attacks.threat import Threat


@dataclass(frozen=True)
class BPDA:
    """`attack`, whose gradients are those of `backward`, and whose losses and verdicts are those of the model.

    Backward pass differentiable approximation (Athalye, Carlini, Wagner 2018, arXiv 1802.00420). `backward` is as in
    `Surface`, which is the way to say it of a defense once: an evaluation then does so in every attack. No block of a
    spec can hold a module, so that this is not in the table.
    """

    name: ClassVar[str] = "bpda"
    attack: Attack
    backward: nn.Module | Callable[[Tensor], Tensor]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        with knowing(model, replace(surface_of(model), backward=self.backward)):
            return self.attack(model, x, y, threat, draws)
