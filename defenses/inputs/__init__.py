"""Transforms in front of a network, and the table from which a spec names them."""

from __future__ import annotations

from defenses.inputs.gaussian import Gaussian
from defenses.inputs.pixel_drop import PixelDrop
from defenses.inputs.quantise import Quantise
from defenses.inputs.random_resize_pad import RandomResizePad
from defenses.inputs.registry import INPUTS, Input
from defenses.inputs.tvm import TVM

_TRANSFORMS: tuple[type[Input], ...] = (Gaussian, Quantise, PixelDrop, RandomResizePad, TVM)
INPUTS.update({transform.name: transform for transform in _TRANSFORMS})

__all__ = ["INPUTS", "TVM", "Gaussian", "Input", "PixelDrop", "Quantise", "RandomResizePad"]
