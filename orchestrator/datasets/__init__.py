"""The table of datasets: one class per name; adding one is one file (or class) and one line here."""

from __future__ import annotations

from orchestrator.datasets.cifar import Cifar10, Cifar100
from orchestrator.datasets.dataset import Dataset, Images, Labels
from orchestrator.datasets.digits import Digits
from orchestrator.datasets.fashion_mnist import FashionMnist
from orchestrator.datasets.image_folder import ImageFolder
from orchestrator.datasets.imagenet import ImageNet
from orchestrator.datasets.mnist import Mnist
from orchestrator.datasets.parquet import Parquet
from orchestrator.datasets.svhn import Svhn
from orchestrator.datasets.synthetic import Synthetic

_KINDS: tuple[type[Dataset], ...] = (
    *(Digits, Mnist, FashionMnist, Cifar10, Cifar100, Svhn),
    *(ImageNet, ImageFolder, Parquet, Synthetic),
)
DATASETS: dict[str, type[Dataset]] = {kind.name: kind for kind in _KINDS}

__all__ = [
    "DATASETS",
    "Cifar10",
    "Cifar100",
    "Dataset",
    "Digits",
    "FashionMnist",
    "ImageFolder",
    "ImageNet",
    "Images",
    "Labels",
    "Mnist",
    "Parquet",
    "Svhn",
    "Synthetic",
]
