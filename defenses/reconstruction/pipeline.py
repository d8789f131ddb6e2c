"""A classifier behind an autoencoder."""

from __future__ import annotations

from torch import Tensor, nn


class Pipeline(nn.Module):
    """Images -> the classifier's logits of what the autoencoder makes of them."""

    def __init__(self, autoencoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.autoencoder, self.classifier = autoencoder, classifier

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        logits: Tensor = self.classifier(self.autoencoder(x))
        return logits


class AsIfUnchanged(nn.Module):
    """The same logits, with the gradient of the classifier at the cleaned image, as if that were the image itself.

    The autoencoder's stand-in is the identity (BPDA; Athalye, Carlini, Wagner 2018, arXiv 1802.00420).
    """

    def __init__(self, model: Pipeline) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        cleaned = self.model.autoencoder(x.detach()).detach()
        logits: Tensor = self.model.classifier(cleaned + (x - x.detach()))
        return logits
