"""The ImageNet networks of torchvision, without weights."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from defenses.networks.normalise import Normalise

_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
_RESNEXTS = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
_VGGS = ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")
_SMALL = (
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "squeezenet1_0", "squeezenet1_1"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"shufflenet_v2_x{times}" for times in ("0_5", "1_0", "1_5", "2_0")),
)
_SEARCHED = (
    *(f"efficientnet_{size}" for size in ("b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l")),
    *(f"regnet_{kind}_{size}" for kind in "xy" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    "regnet_y_128gf",
)
_MODERN = (
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    *("maxvit_t", "swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
    *("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
)
_OTHERS = ("alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "googlenet", "inception_v3")
MODELS = (*_RESNETS, *_RESNEXTS, *_VGGS, *_SMALL, *_SEARCHED, *_MODERN, *_OTHERS)  # here, for a spec imports no models


@dataclass(frozen=True)
class TorchvisionModel:
    """A classifier of torchvision by its name there, for images of ImageNet's size; starts untrained.

    Grey images are shown to all three channels of the first convolution. Vision transformers and MaxViT are built
    for the size of the images, GoogLeNet and Inception without their auxiliary classifiers. No ReLU that is a module
    works in place, so that a defense may keep what it was given. Many need images of 32, 63 or 75 pixels at least;
    `check` tries that for all but the RegNets, which torch cannot build without numbers.
    torchvision is imported when a network is built: it takes seconds.
    Raises ValueError for a name that is not known.
    """

    name: ClassVar[str] = "torchvision"
    model: str = "resnet18"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            near = difflib.get_close_matches(str(self.model), MODELS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"model: must be one of {', '.join(sorted(MODELS))}, got {self.model!r}{hint}")

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        """Raises ValueError unless the images are grey or coloured, or where the network takes no such size."""
        from torchvision import models

        if channels not in (1, 3):
            raise ValueError(f"model: {self.model} takes images of 1 or 3 channels, got {channels}")
        network = models.get_model(self.model, weights=None, num_classes=classes, **self._settings(size))
        for module in network.modules():
            if getattr(module, "inplace", False):
                module.inplace = False
        layers: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(channels))
        if channels == 1:
            layers["colour"] = Colour()
        layers["network"] = network
        return nn.Sequential(layers)

    def _settings(self, size: int) -> dict[str, Any]:
        if self.model.startswith("vit_"):
            patch = int(self.model.rpartition("_")[2])
            if size % patch:
                raise ValueError(f"model: {self.model} takes images of a multiple of {patch} pixels, got {size}")
            return {"image_size": size}
        if self.model == "maxvit_t":
            return {"input_size": (size, size)}
        if self.model in ("googlenet", "inception_v3"):
            return {"aux_logits": False, "init_weights": True}
        return {}


class Colour(nn.Module):
    """Grey images as coloured ones. [B, 1, H, W] -> [B, 3, H, W]"""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)
