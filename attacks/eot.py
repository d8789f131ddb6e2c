"""An attack on the expectation of a stochastic model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from attacks.attack import Attack
from attacks.checks import at_least
from attacks.draws import Draws
from attacks.gradient_attacks import GRADIENT_ATTACKS
from attacks.pgd import PGD
from attacks.surface import knowing, surface_of
from attacks.threat import Threat


@dataclass(frozen=True)
class EOT:
    """`attack`, each of whose gradients and looks is the mean over `draws` draws of the model's noise.

    Expectation over transformation (Athalye, Engstrom, Ilyas, Kwok 2018, arXiv 1707.07397): the gradient of the
    expected loss. Each example has draws of its own in each step. An evaluation gives every attack as many draws as the
    model's surface names; this is for another number of them. On a model without noise it finds what `attack` does.
    """

    name: ClassVar[str] = "eot"
    draws: int = 20
    attack: Attack = field(default=PGD(), metadata={"kinds": GRADIENT_ATTACKS})

    def __post_init__(self) -> None:
        at_least("draws", self.draws, 1)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        with knowing(model, replace(surface_of(model), draws=self.draws)):
            return self.attack(model, x, y, threat, draws)
