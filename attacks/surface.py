"""What an attacker who knows a defense knows about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    replaces that of the model in the backward pass (BPDA; Athalye, Carlini, Wagner 2018, arXiv 1802.00420). It
    gives [B, K] of images, as the model does: for a network f behind a part g that has no useful gradient and is nearly
    the identity, f itself, or `lambda x: f(x + (g(x) - x).detach())`, which is its gradient at g(x).
    Raises ValueError for fewer than one draw or an unknown loss.
    """

    draws: int = 1
    losses: tuple[str, ...] = ("cross_entropy", "margin")
    backward: nn.Module | Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        at_least("draws", self.draws, 1)
        for loss in self.losses:
            one_of("losses", loss, LOSSES)


_PLAIN = Surface()


def surface_of(model: nn.Module) -> Surface:
    """What is known about `model`: its `surface`, where there is one beside it, else that it is a plain network."""
    surface = getattr(model, "surface", _PLAIN)
    return surface if isinstance(surface, Surface) else _PLAIN


@contextmanager
def knowing(model: nn.Module, surface: Surface) -> Iterator[None]:
    """Within the block attacks on `model` know `surface`, whatever stands beside it; then that is put back."""
    held = vars(model).get("surface", _PLAIN)
    was_known = "surface" in vars(model)
    object.__setattr__(model, "surface", surface)
    try:
        yield
    finally:
        if was_known:
            object.__setattr__(model, "surface", held)
        else:
            object.__delattr__(model, "surface")
