"""The regularizer of Learn2Perturb: noise is pushed up, less and less from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from defenses.noise.feature_noise import FeatureNoise


def harmonic(epochs: int) -> float:
    """1 + 1/2 + ... + 1 / (epochs + 1)"""
    return math.fsum(1 / number for number in range(1, epochs + 2))


def constant(epochs: int) -> float:
    return 1.0


def logarithmic(epochs: int) -> float:
    return 1 + math.log(1 + epochs)


def linear(epochs: int) -> float:
    return 1.0 + epochs


ANNEALINGS: dict[str, Callable[[int], float]] = {
    "harmonic": harmonic,
    "constant": constant,
    "logarithmic": logarithmic,
    "linear": linear,
}
"""Name -> what the push is divided by, after so many epochs with noise. All begin at 1."""


def regularizer(noise: nn.Module) -> Tensor:
    """Minus the sum of the square roots of all deviations: going down it makes noise grow. -> []

    A deviation that many elements share counts once for each: the value of equal deviations is the same at every
    granularity. It has no slope at 0.
    """
    return torch.stack([-layer.sharing * layer.sigma.sqrt().sum() for layer in layers(noise)]).sum()


def new_noise_optimizer(noise: nn.Module, lr: float, momentum: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum and no weight decay.

    The gradient of a shared deviation is the sum over its elements; its rate is divided by their number, so that it
    moves by the mean of what its elements would have moved, and a rate means the same at every granularity.
    """
    groups = [{"params": [layer.sigma], "lr": lr / layer.sharing} for layer in layers(noise)]
    return torch.optim.SGD(groups, lr, momentum, nesterov=momentum > 0, foreach=True)


@torch.no_grad()
def lift(noise: nn.Module, floor: float) -> None:
    """No deviation stays below `floor`."""
    for layer in layers(noise):
        layer.sigma.clamp_(min=floor)


def layers(noise: nn.Module) -> Iterable[FeatureNoise]:
    return (layer for layer in noise.modules() if isinstance(layer, FeatureNoise))
