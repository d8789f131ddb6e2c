"""How the learning rate moves over training, as a factor of the rate set."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(done: float) -> float:
    return 1.0


def linear(done: float) -> float:
    """Falls to 0."""
    return 1 - done


def cosine(done: float) -> float:
    """Half a cosine, from 1 to 0 (Loshchilov, Hutter 2017, arXiv 1608.03983, without restarts)."""
    return (1 + math.cos(math.pi * done)) / 2


def step(done: float) -> float:
    """A tenth from the half, a hundredth from three quarters (He et al. 2016, arXiv 1512.03385)."""
    return 0.1 ** ((done >= 0.5) + (done >= 0.75))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "constant": constant,
    "step": step,
    "linear": linear,
}
"""Name -> factor in [0, 1] after the share `done` in [0, 1) of the epochs that follow the warm-up."""
