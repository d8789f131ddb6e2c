"""What an attack costs, counted from outside: an attack cannot flatter itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

Found = TypeVar("Found")


@dataclass
class Passes:
    """Images sent forward through a model, and gradients taken back through it."""

    forward: int = 0
    backward: int = 0

    def kept_when_done(self, work: Callable[[Tensor], Found]) -> Callable[[Tensor], Found]:
        """The same work, whose passes do not count where it fails: it will be done again."""

        def watched(rows: Tensor) -> Found:
            before = self.forward, self.backward
            try:
                return work(rows)
            except BaseException:
                self.forward, self.backward = before
                raise

        return watched


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
