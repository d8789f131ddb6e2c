"""Answers for images seen before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.draws import Draws

Transform = Callable[[Tensor, Draws], Tensor]


class Remembered:
    """What a transform gave for each example id, as long as the image is the same to the bit.

    For a transform that is costly, and whose answer for an image depends on it and its draws alone. An image that was
    attacked or augmented is another one: it is transformed, and takes the place.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, x: Tensor, draws: Draws, transform: Transform) -> Tensor:
        """[B, C, H, W] -> like x. The seed of `draws` has to be the same in all calls."""
        keys = list(zip(draws.example_ids.tolist(), _fingerprints(x).tolist(), strict=True))
        missing = [row for row, (example, print_) in enumerate(keys) if self._print(example) != print_]
        if missing:
            rows = torch.tensor(missing, device=x.device)
            for row, answer in zip(missing, transform(x[rows], draws.select(rows)), strict=True):
                self._known[keys[row][0]] = keys[row][1], answer.clone()
        return torch.stack([self._known[example][1] for example, _ in keys])

    def _print(self, example: int) -> int | None:
        return self._known[example][0] if example in self._known else None


def _fingerprints(x: Tensor) -> Tensor:
    """A 64-bit number of each image, from the bits of its float32 values. [B, ...] -> int64 [B]"""
    bits = x.float().contiguous().flatten(1).view(torch.int32).long()
    odd = 2 * Draws(0, torch.arange(1, device=x.device)).integers(2**52, bits.shape[1])[0] + 1
    return (bits * odd).sum(1)
