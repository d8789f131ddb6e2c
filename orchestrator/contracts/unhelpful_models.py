"""Models that give an attack no gradient, or noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.draws import Draws


class Blind(nn.Module):
    """Gives no gradient: 'argmax' cuts the graph, 'constant' ignores the image, 'nan' has a slope without value."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.bias = how, nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).sum(1)
        if self.how == "argmax":
            return torch.stack([score < 24, score >= 24], 1).float()
        if self.how == "constant":
            return self.bias.expand(len(x), 2)
        return torch.stack([score, score + (score - score).sqrt()], 1)


class Jitter(nn.Module):
    """Adds noise from the draws that it is lent; `seen` has one of them for each look."""

    draws: Draws | None = None

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.draws is None:
            raise RuntimeError("a stochastic model was asked without draws: ask through attacks.queries.querying")
        if len(self.draws.example_ids) != len(x):
            raise RuntimeError(f"{len(x)} images came with the draws of {len(self.draws.example_ids)}")
        self.seen.append(self.draws.uniform(1)[0].item())
        return x + 0.1 * self.draws.fork("jitter").uniform(*x.shape[1:]).to(x.dtype)
