"""How many images go through a model at once: half as many from the moment when they do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from defenses.out_of_memory import is_out_of_memory, release

Part = TypeVar("Part")


class EvaluationOutOfMemory(RuntimeError):
    """Not even one image at a time fits; says on which device, and what was asked for."""


class Batching:
    """For work whose result does not depend on how the rows are divided. `size` never grows again."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self._device = size, device

    def each(self, rows: Tensor, work: Callable[[Tensor], Part]) -> list[Part]:
        """What `work` gives for the rows, part by part, in order; a part that did not fit is done again in halves."""
        found: list[Part] = []
        begin = 0
        while begin < len(rows):
            part = rows[begin : begin + self.size]
            try:
                found.append(work(part))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error).splitlines()[0]
            else:
                begin += len(part)
                continue
            self._halve(len(part), said)
        return found

    def _halve(self, tried: int, said: str) -> None:
        release(self._device)
        if tried == 1:
            raise EvaluationOutOfMemory(f"out of memory on {self._device} with one image at a time: {said}")
        self.size = tried // 2
