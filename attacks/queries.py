"""How attacks ask a model: in eval mode, with gradients of the input only, and without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.losses import Loss
from attacks.sources import lending, stochastic_layers


class Queries:
    """A model to ask, within `querying`. `draws` feed its stochastic layers: a second look needs a fork."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._layers = stochastic_layers(model)

    def logits(self, x: Tensor, draws: Draws) -> Tensor:
        """One forward pass. [B, C, H, W] -> [B, K]"""
        with torch.no_grad(), lending(self._layers, draws):
            out: Tensor = self.model(x)
        return out

    def gradient(self, x: Tensor, y: Tensor, loss: Loss, draws: Draws) -> tuple[Tensor, Tensor]:
        """The gradient of each example's loss, and the logits: one forward and one backward pass. -> like x, [B, K]

        Where the model gives no gradient (an argmax, say) it is zero, as is an entry that is NaN: whether such a
        model is robust or only hides is for the evaluation to ask.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad(), lending(self._layers, draws):
            logits: Tensor = self.model(x)
            total = loss(logits, y).sum()  # a sum, not a mean: rows do not meet
            if not total.requires_grad:
                return torch.zeros_like(x), logits.detach()
            (gradient,) = torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)
        return gradient.nan_to_num(), logits.detach()


@contextmanager
def querying(model: nn.Module) -> Iterator[Queries]:
    """The model in eval mode and with no gradient of its parameters; each mode and flag is put back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield Queries(model)
    finally:
        for parameter, needs_gradient in flags:
            parameter.requires_grad_(needs_gradient)
        for module, is_training in modes:
            module.training = is_training  # not train(): a module may override it
