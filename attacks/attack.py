"""What every attack is: a frozen dataclass of hyperparameters that perturbs a batch when called."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from attacks.draws import Draws
from attacks.threat import NORMS, Threat


class Attack(Protocol):
    """Calling it gives one allowed image per example, whether or not it fools the model.

    `x` in [0, 1] and the answer are [B, C, H, W], `y` int64 [B], `draws.example_ids` those of the rows. The model
    gives logits [B, K] and is left as found; row i of the answer depends on row i of the batch alone. An attack that is
    not for every norm has `norms`, those of the threats it takes; a minimum-norm attack has `nearest(model, x, y, norm,
    draws)`, and answers the nearest point that fools, or one on the way to it where that lies beyond eps.
    """

    name: ClassVar[str]

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor: ...


def norms_of(attack: Any) -> tuple[str, ...]:
    """The norms of the threats that an attack takes; one around another attack takes what that does."""
    found: tuple[str, ...] = getattr(getattr(attack, "attack", attack), "norms", NORMS)
    return found
