"""How an attack asks a model: it leaves the model as it was, and keeps the worst image it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attacks.losses import Loss, margin


@contextmanager
def querying(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and without parameter gradients inside the block; mode and gradients as found after it."""
    modes = [(module, module.training) for module in model.modules()]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def ascent(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """The gradient of the loss at `x`, and the logits there. [B, ...], [B] -> [B, ...], [B, K]

    Works under no_grad. The losses are summed, so that no image's gradient depends on its batch.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return gradient, logits.detach()


class Worst:
    """The image at which the model is furthest wrong (largest margin loss), per example, of those scored so far."""

    def __init__(self, x: Tensor) -> None:
        self.images = x.clone()
        self.scores = torch.full((len(x),), -torch.inf, device=x.device)

    def score(self, adversarial: Tensor, logits: Tensor, y: Tensor) -> None:
        """Keep each image that is worse than the one known."""
        scores = margin(logits.float(), y)
        is_worse = scores > self.scores
        self.scores = torch.where(is_worse, scores, self.scores)
        self.images = torch.where(is_worse.view(-1, *[1] * (adversarial.ndim - 1)), adversarial, self.images)
