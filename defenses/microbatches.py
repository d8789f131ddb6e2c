"""Batches that do not fit into memory: the same step from gradients that are added up over parts of the batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from defenses.fit import Batch, Loss


@dataclass(frozen=True)
class Microbatches:
    """A batch of `whole` images in `count` parts, none smaller than `least` images.

    The parts' gradients add up to the batch's where its loss is a mean over examples, and draws are keyed by
    example. Two things are not the same: batch norm sees the statistics of a part (`remarks` says so), and layers
    that draw from torch's global generator draw other values.
    """

    whole: int
    least: int
    count: int = 1

    @classmethod
    def of(cls, modules: Iterable[nn.Module], whole: int, count: int) -> Microbatches:
        """Two images at least where there is batch norm, which cannot learn from one."""
        return cls(whole, 2 if any(map(_has_batch_norm, modules)) else 1, count)

    @property
    def most(self) -> int:
        """The images of the largest part."""
        return -(-self.whole // self.count)

    def halved(self) -> Microbatches | None:
        """With parts half as large; None where they cannot be smaller."""
        finer = Microbatches(self.whole, self.least, 2 * self.count)
        return finer if self.least <= finer.most < self.most else None

    def sizes(self, images: int) -> list[int]:
        """How a batch of so many images is divided: as evenly as can be, the larger parts first."""
        parts = 1 if self.count == 1 else max(1, min(-(-images // self.most), images // self.least))
        return [len(part) for part in torch.arange(images).tensor_split(parts)]

    def remarks(self) -> tuple[str, ...]:
        """What differs from training on whole batches, a sentence each."""
        if self.count == 1 or self.least == 1:
            return ()
        return (
            f"batch norm normalised by the statistics of {self.most} images at a time instead of {self.whole}, and "
            "took each part into its running statistics: not the step of the whole batch",
        )

    def accumulated(self, loss: Loss, parameters: list[nn.Parameter]) -> Loss:
        """The loss of a whole batch, one part at a time; its gradient is ready before anyone asks for it.

        Only one part's graph is in memory at once, and it cannot be differentiated twice. The gradient is that of
        `parameters` and of the model given: all that a step may change.
        """
        if self.count == 1:
            return loss

        def whole(model: nn.Module, batch: Batch) -> Tensor:
            sizes = self.sizes(len(batch.y))
            if len(sizes) == 1:
                return loss(model, batch)
            trained = _to_train([*parameters, *model.parameters()])
            value, gradients = torch.zeros((), device=batch.x.device), list[Tensor | None]([None] * len(trained))
            for rows in torch.split(torch.arange(len(batch.y), device=batch.x.device), sizes):
                part = loss(model, batch.select(rows)) * (len(rows) / len(batch.y))
                _add(gradients, part, trained)
                value = value + part.detach()
            found: Tensor = _Ready.apply(value, gradients, *trained)
            return found

        return whole


class _Ready(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *scale: Any) -> Any:
        return None, None, *(None if gradient is None else gradient * scale[0] for gradient in ctx.gradients)


def _add(gradients: list[Tensor | None], part: Tensor, trained: list[nn.Parameter]) -> None:
    """Adds the gradients of one part; autograd's own may share memory, so none is changed in place."""
    with torch.autocast(part.device.type, enabled=False):
        found = torch.autograd.grad(part, trained, allow_unused=True)
    torch.clear_autocast_cache()  # weights cast for this part are of its freed graph
    for place, new in enumerate(found):
        old = gradients[place]
        gradients[place] = new if old is None else old if new is None else old + new


def _to_train(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Each once, those that want a gradient now."""
    return list({id(parameter): parameter for parameter in parameters if parameter.requires_grad}.values())


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())
