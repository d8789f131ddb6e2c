"""The second stage of WNLL's training: the buffer alone learns from interpolated scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.sources import drawing
from defenses.data import Data
from defenses.features import vectors
from defenses.fit import Batch
from defenses.interpolation.buffered import Buffered
from defenses.interpolation.classifier import MODES, SCALE
from defenses.interpolation.templates import Neighbourhood, Templates, template_rows

_MOST = 256  # images at a time, when features are taken outside training


@dataclass(eq=False)
class InterpolatedStage:
    """The loss of a batch by what the templates of its epoch say, which are drawn anew for each epoch."""

    model: Buffered
    data: Data
    draws: Draws
    size: int
    sampling: str
    mode: str
    near: Neighbourhood
    epoch: int = -1
    entering: Tensor | None = None
    rows: Tensor | None = None

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the interpolated scores, with the gradient of the linear head, sample by sample.

        The network before the buffer is in eval mode. An image is not among its own templates.
        """
        with _evaluating(self.model.network):
            logits, features = self.model.both(batch.x)
            templates = self._templates(batch)
        scores = SCALE * MODES[self.mode](features.detach(), templates, self.near, batch.draws.example_ids).float()
        logits = logits.float()
        return F.cross_entropy(logits + (scores - logits).detach(), batch.y)

    @torch.no_grad()
    def _templates(self, batch: Batch) -> Templates:
        """Only the buffer moves within an epoch, so what comes to it from the templates is computed once."""
        if self.epoch != batch.epoch or self.entering is None or self.rows is None:
            source = self.draws.fork("interpolated epoch", batch.epoch)
            self.rows = template_rows(self.data, self.size, self.sampling, source, 0)
            images = self.data.images[self.rows]
            self.entering = in_parts(self.model, self.model.entering, images, source.select(self.rows), len(batch.y))
            self.epoch = batch.epoch
        features, ids = vectors(self.model.buffer(self.entering)), self.draws.example_ids[self.rows]
        return Templates.of(features, self.data.labels[self.rows], self.data.classes, self.near.k, ids)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within the block no parameter of the network wants a gradient; then each as before."""
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.requires_grad_(False)
        yield
    finally:
        for parameter, needs_gradient in flags:
            parameter.requires_grad_(needs_gradient)


@torch.no_grad()
def in_parts(model: nn.Module, ask: Callable[[Tensor], Tensor], images: Tensor, draws: Draws, most: int) -> Tensor:
    """What `ask`, a method of the model, says of uint8 images, at most so many at a time; what is stochastic in it
    draws from `draws`, those of the images. [M, C, H, W] -> [M, ...]"""
    found = []
    for rows in torch.split(torch.arange(len(images), device=images.device), min(most, _MOST)):
        x = images[rows].to(torch.float32, memory_format=torch.channels_last).div_(255)
        with drawing(model, draws.select(rows)):
            found.append(ask(x))
    return torch.cat(found)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training
