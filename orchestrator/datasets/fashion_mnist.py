"""Fashion-MNIST from its four files, which have MNIST's format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.datasets.mnist import Mnist


@dataclass(frozen=True)
class FashionMnist(Mnist):
    """70,000 grey 28x28 images of 10 kinds of clothing (Xiao, Rasul, Vollgraf 2017), read from ROOT/FashionMNIST/raw.

    `download` fetches the files when they are not there. Only the two files of the split asked for are opened.
    """

    name: ClassVar[str] = "fashion_mnist"
    folder: ClassVar[str] = "FashionMNIST"
