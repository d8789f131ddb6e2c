"""What an attack is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from attacks.draws import Draws
from attacks.threat import Threat


class Attack(Protocol):
    """A frozen dataclass whose fields are its hyperparameters."""

    @property
    def name(self) -> str: ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        """Images inside the threat that the model should get wrong. x float [B, C, H, W] in [0, 1], y int64 [B].

        The answer for an example depends on the example and its draws, not on the batch it comes in. The model's
        mode and gradients are left as found.
        """
        ...


def check_choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError unless a setting is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{field}: must be one of {', '.join(allowed)}, got {value!r}")


def check_count(field: str, value: int) -> None:
    """Raises ValueError unless a setting is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{field}: must be a whole number >= 1, got {value!r}")
