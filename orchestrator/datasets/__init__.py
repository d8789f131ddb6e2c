"""The table of datasets: one class per name; adding one is one file (or class) and one line here."""

from __future__ import annotations

from orchestrator.datasets.dataset import Dataset, Images, Labels
from orchestrator.datasets.digits import Digits
from orchestrator.datasets.mnist import Mnist
from orchestrator.datasets.parquet import Parquet
from orchestrator.datasets.synthetic import Synthetic

DATASETS: dict[str, type[Dataset]] = {dataset.name: dataset for dataset in (Digits, Mnist, Parquet, Synthetic)}

__all__ = ["DATASETS", "Dataset", "Digits", "Images", "Labels", "Mnist", "Parquet", "Synthetic"]
