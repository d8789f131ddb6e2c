"""PGD on real images: against a plain loop written for this test, and against itself in other batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from linear import linear_problem
from scipy.optimize import linprog
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import FGSM, PGD, Draws, Noise, Threat
from attacks.losses import margin
from attacks.steepest import steepest_step
from attacks.threat import NORMS, length
from attacks.worst import Worst

MNIST = Path(__file__).parents[2] / "shared" / "data" / "MNIST" / "raw"
NORM = pytest.mark.parametrize("norm", NORMS)
EPS = {"linf": 0.1, "l2": 1.0, "l1": 8.0}
EXAMPLES = 500


class Case:
    """A small CNN, half fooled at EPS, and 500 test images it is right about or not."""

    def __init__(self) -> None:
        (images, labels), (self.x, self.y) = mnist() if MNIST.exists() else digits()
        self.ids = torch.arange(1000, 1000 + EXAMPLES)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = train(images, labels)

    def fooled(self, attack: PGD | FGSM | Noise, threat: Threat, batch: int = EXAMPLES) -> Tensor:
        return self.in_order(attack, threat, torch.arange(EXAMPLES), batch)

    def in_order(self, attack: PGD | FGSM | Noise, threat: Threat, order: Tensor, batch: int) -> Tensor:
        """Which examples are fooled, asked in this order in such batches; told in the order of the data set."""
        verdicts = torch.zeros(EXAMPLES, dtype=torch.bool)
        for rows in order.split(batch):
            x, y, draws = self.x[rows], self.y[rows], Draws(0, self.ids[rows])
            adversarial = attack(self.model, x, y, threat, draws)
            assert threat.allows(x, adversarial).all()
            verdicts[rows] = self.judge(adversarial, rows)
        return verdicts

    def judge(self, adversarial: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(adversarial).argmax(1) != self.y[rows]


def mnist() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def read(name: str, skip: int, count: int) -> Tensor:
        data = (MNIST / name).read_bytes()[skip : skip + count]
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def split(name: str, count: int) -> tuple[Tensor, Tensor]:
        images = read(f"{name}-images-idx3-ubyte", 16, count * 784).view(count, 1, 28, 28)
        return images / 255, read(f"{name}-labels-idx1-ubyte", 8, count).long()

    return split("train", 4000), split("t10k", EXAMPLES)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The same shapes from 8x8 images, where MNIST is not at hand."""
    found = load_digits()
    images = F.interpolate(torch.tensor(found.images).float()[:, None] / 16, size=28, mode="nearest")
    labels = torch.tensor(found.target).long()
    return (images[EXAMPLES:], labels[EXAMPLES:]), (images[:EXAMPLES], labels[:EXAMPLES])


def train(images: Tensor, labels: Tensor) -> nn.Module:
    convolutions = [nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2, padding=2), nn.ReLU()]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(16 * 49, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(4):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()
