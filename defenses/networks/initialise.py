"""The start of the weights of residual networks."""

from __future__ import annotations

from torch import nn


def initialise_convolutions(model: nn.Module) -> None:
    """Normal weights of variance 2 / (kernel pixels x output channels): the norm of a gradient survives each layer.

    He, Zhang, Ren, Sun 2015, arXiv 1502.01852. Biases and all other layers keep torch's own start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
