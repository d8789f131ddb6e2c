"""How attacks ask a model: in eval mode, through its surface, and without leaving a trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.losses import Loss
from attacks.sources import lending, stochastic_layers
from attacks.surface import surface_of


class Queries:
    """A model to ask, within `querying`. `draws` feed its stochastic layers: another look needs a fork.

    Where the model's surface says so, every answer is an expectation over as many draws as it names, each example
    with draws of its own in each (EOT; Athalye, Engstrom, Ilyas, Kwok 2018, arXiv 1707.07397), and gradients are those
    of its stand-in (BPDA; Athalye, Carlini, Wagner 2018, arXiv 1802.00420).
    """

    def __init__(self, model: nn.Module) -> None:
        surface = surface_of(model)
        self.model, self.looks, self.backward = model, surface.draws, surface.backward
        self._layers = stochastic_layers(model)
        self._layers_behind = stochastic_layers(self.backward) if isinstance(self.backward, nn.Module) else []

    def logits(self, x: Tensor, draws: Draws) -> Tensor:
        """One forward pass for each look. [B, C, H, W] -> [B, K]; of several, the logarithm of the mean softmax."""
        with torch.no_grad():
            return _mean_logits([self._forward(x, source) for source in self._sources(draws)])

    def gradient(self, x: Tensor, y: Tensor, loss: Loss, draws: Draws) -> tuple[Tensor, Tensor]:
        """The gradient of each example's loss, and the logits: one pass each way for each look. -> like x, [B, K]

        Of several looks, the gradient of the mean loss. Where the model gives no gradient (an argmax, say) it is zero,
        as is an entry that is NaN: whether such a model is robust or only hides is for the evaluation to ask.
        """
        _, slopes, logits = self.slopes(x, lambda given: loss(given, y)[:, None], draws)
        return slopes[:, 0], logits

    def slopes(self, x: Tensor, values: Callable[[Tensor], Tensor], draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Several `values` of the logits ([B, K] -> [B, M]), the gradient of each, and the logits.

        One forward pass and M backward ones for each look; the same means over looks and the same zeros as `gradient`.
        -> [B, M], [B, M, C, H, W], [B, K]
        """
        looks = [self._look(x.detach(), values, source) for source in self._sources(draws)]
        value, slope, logits = zip(*looks, strict=True)
        return _mean(value), _mean(slope), _mean_logits(list(logits))

    def differentiable(self, x: Tensor, draws: Draws) -> Tensor:
        """One look at the logits, within the graph where autograd is on: through the stand-in, if there is one.

        [B, C, H, W] -> [B, K]. They need no gradient where the model's graph is interrupted.
        """
        if self.backward is None:
            return self._forward(x, draws)
        with torch.no_grad():
            logits = self._forward(x, draws)
        with lending(self._layers_behind, draws):
            scores: Tensor = self.backward(x)
        if scores.shape != logits.shape:
            raise ValueError(f"backward: must give {list(logits.shape)} as the model does, got {list(scores.shape)}")
        return logits + (scores - scores.detach())

    def _look(self, x: Tensor, values: Callable[[Tensor], Tensor], draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        x = x.requires_grad_()
        with torch.enable_grad():
            logits = self.differentiable(x, draws)
            given = values(logits)
            totals = given.sum(0)  # a sum, not a mean: rows do not meet
            slopes = [_gradient(total, x, is_last=i == len(totals) - 1) for i, total in enumerate(totals)]
        return given.detach(), torch.stack(slopes, 1), logits.detach()

    def _forward(self, x: Tensor, draws: Draws) -> Tensor:
        with lending(self._layers, draws):
            logits: Tensor = self.model(x)
        return logits

    def _sources(self, draws: Draws) -> list[Draws]:
        return [draws] if self.looks == 1 else [draws.fork("look", look) for look in range(self.looks)]


@contextmanager
def querying(model: nn.Module) -> Iterator[Queries]:
    """The model in eval mode and with no gradient of its parameters; each mode and flag is put back at the end.

    The same of the stand-in of its surface, where that is a module.
    """
    behind = surface_of(model).backward
    asked = [model, behind] if isinstance(behind, nn.Module) else [model]
    modes = [(module, module.training) for one in asked for module in one.modules()]
    flags = [(parameter, parameter.requires_grad) for one in asked for parameter in one.parameters()]
    try:
        for one in asked:
            one.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield Queries(model)
    finally:
        for parameter, needs_gradient in flags:
            parameter.requires_grad_(needs_gradient)
        for module, is_training in modes:
            module.training = is_training  # not train(): a module may override it


def _gradient(total: Tensor, x: Tensor, is_last: bool) -> Tensor:
    if not total.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(total, x, retain_graph=not is_last, allow_unused=True, materialize_grads=True)
    return gradient.nan_to_num()


def _mean(looks: tuple[Tensor, ...]) -> Tensor:
    return looks[0] if len(looks) == 1 else torch.stack(looks).mean(0)


def _mean_logits(looks: list[Tensor]) -> Tensor:
    """What a single look says as it is; of several, what is fooled is their mean probability. -> [B, K]"""
    return looks[0] if len(looks) == 1 else torch.stack(looks).log_softmax(2).logsumexp(0) - math.log(len(looks))
