"""What an attack costs, counted from outside: an attack cannot flatter itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Passes:
    """Images sent forward through a model, and gradients taken back through it."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    """Count the passes of every call to `model` inside the block, in images."""
    passes = Passes()

    def on_forward(_module: nn.Module, _inputs: Any, logits: Any) -> None:
        passes.forward += len(logits)
        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.register_hook(on_backward)  # type: ignore[no-untyped-call]

    def on_backward(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    handle = model.register_forward_hook(on_forward)
    try:
        yield passes
    finally:
        handle.remove()
