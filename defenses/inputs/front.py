"""A network behind transforms of its images, and what an attacker who knows them does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.surface import Surface
from defenses.inputs.registry import Input

Backward = nn.Module | Callable[[Tensor], Tensor]


class Front(nn.Module):
    """The transforms, one after the other. [B, C, H, W] in [0, 1] -> the same

    While it `stands_in`, transforms that give no useful gradient have that of their stand-ins instead (BPDA; Athalye,
    Carlini, Wagner 2018, arXiv 1802.00420); what they give stays what it is.
    """

    def __init__(self, inputs: tuple[Input, ...], channels: int, size: int) -> None:
        super().__init__()
        surfaces = [each.surface() for each in inputs]
        self.transforms = nn.ModuleList(each(channels, size) for each in inputs)
        self.backwards: list[Backward | None] = [surface.backward for surface in surfaces]
        self.passes = max(surface.draws for surface in surfaces)
        """Over how many draws a gradient is to be averaged."""
        self.stands_in = False

    def forward(self, x: Tensor) -> Tensor:
        for transform, backward in zip(self.transforms, self.backwards, strict=True):
            if backward is None or not (self.stands_in and torch.is_grad_enabled()):
                x = transform(x)
                continue
            with torch.no_grad():
                transformed = transform(x)
            instead = backward(x)
            x = transformed + (instead - instead.detach())
        return x


class Fronted(nn.Module):
    """`network` behind `front`."""

    def __init__(self, front: Front, network: nn.Module) -> None:
        super().__init__()
        self.front, self.network = front, network

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        logits: Tensor = self.network(self.front(x))
        return logits


def behind(model: nn.Module) -> tuple[str, nn.Module]:
    """The network without what is in front of it, and how the names of its modules begin in the model."""
    return ("network.", model.network) if isinstance(model, Fronted) else ("", model)


def front_of(model: nn.Module) -> Front | None:
    """What is in front of a network, however it is wrapped."""
    return next((module for module in model.modules() if isinstance(module, Front)), None)


@contextmanager
def standing_in(model: nn.Module) -> Iterator[None]:
    """Within the block gradients of the images pass the stand-ins of the transforms."""
    front = front_of(model)
    before = front.stands_in if front else False
    try:
        if front:
            front.stands_in = True
        yield
    finally:
        if front:
            front.stands_in = before


def known(surface: Surface, model: nn.Module) -> Surface:
    """The surface of a defense's deployed model, given what the defense says of its network alone.

    `draws` are the most of both; `backward` is the stand-in of each transform that has one, then the defense's own, or
    the true gradient of the rest. It gives the model's logits, unless the defense has a stand-in of its own.
    """
    front = front_of(model)
    if front is None:
        return surface
    has_stand_in = surface.backward is not None or any(front.backwards)
    backward = _StandIn(model, front, surface.backward) if has_stand_in else None
    return replace(surface, draws=max(surface.draws, front.passes), backward=backward)


class _StandIn(nn.Module):
    """Images -> logits, differentiable all the way."""

    def __init__(self, model: nn.Module, front: Front, backward: Backward | None) -> None:
        super().__init__()
        self.model, self.front, self.backward = model, front, backward

    def forward(self, x: Tensor) -> Tensor:
        with standing_in(self.model):
            logits: Tensor = self.model(x) if self.backward is None else self.backward(self.front(x))
        return logits
