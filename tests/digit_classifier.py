"""A small network for real 8x8 digits, trained in a second on attacked images, so that half of them withstand."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

EXAMPLES = 300


@dataclass(frozen=True, eq=False)
class Case:
    model: nn.Module
    x: Tensor  # [300, 1, 8, 8], which it has not seen and is right about
    y: Tensor
    ids: Tensor


@functools.cache
def digit_case(seed: int = 0) -> Case:
    """Trained with random noise and one step of the gradient (Wong, Rice, Kolter 2020, arXiv 2001.03994), linf 0.1."""
    found = load_digits()
    images, labels = torch.tensor(found.images).float()[:, None] / 16, torch.tensor(found.target).long()
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(6):
            for rows in torch.randperm(1200).split(50):
                noisy = _attacked(model, images[rows], labels[rows])
                optimizer.zero_grad()
                F.cross_entropy(model(noisy), labels[rows]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    x, y = images[1200:], labels[1200:]
    right = (model(x).argmax(1) == y).nonzero().flatten()[:EXAMPLES]
    return Case(model, x[right], y[right], right + 5000)


def _attacked(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    start = (x + torch.empty_like(x).uniform_(-0.1, 0.1)).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), y), start)
    return (start.detach() + 0.125 * gradient.sign()).clamp(x - 0.1, x + 0.1).clamp(0, 1)
