"""Randomness keyed by example: the same example gets the same draws in any batch, order or shard."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


@dataclass(frozen=True, eq=False)
class Draws:
    """A counter-based source of randomness, one independent stream per example.

    `seed` is any integer of any size, `example_ids` an integer tensor [B]. A Draws has no state: the same
    call gives the same answer, and `fork` gives an unrelated source. Integers are hashed with the finaliser
    of SplitMix64 (Steele, Lea, Flood 2014), so `uniform`, `integers` and `signs` agree to the bit between
    CPU and GPU, `normal` up to the rounding of a logarithm and a cosine.
    """

    seed: int
    example_ids: Tensor

    def fork(self, *labels: str | int) -> Draws:
        """An unrelated source for the same examples, e.g. `draws.fork("pgd", restart)`."""
        return replace(self, seed=_digest(self.seed, "fork", *labels))

    def select(self, index: Tensor) -> Draws:
        """The source of some of the examples; `index` is a bool mask [B] or positions."""
        return replace(self, example_ids=self.example_ids[index.to(self.example_ids.device)])

    def to(self, device: torch.device | str) -> Draws:
        return replace(self, example_ids=self.example_ids.to(device))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high), `high` by rounding only; one block of `shape` per example. -> [B, *shape]"""
        return (self._bits(*shape) >> 40 & 0xFFFFFF).float().mul_((high - low) / 2**24).add_(low)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal float32, by Box and Muller. -> [B, *shape]"""
        bits = self._bits(*shape)
        radius = ((bits >> 40 & 0xFFFFFF).float() + 1) / 2**24  # (0, 1]: its logarithm is finite
        angle = (bits >> 16 & 0xFFFFFF).float() / 2**24
        return torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * angle)

    def coarse_normal(self, *shape: int) -> Tensor:
        """Standard normal float32 with |z| < 4.9, for noise in bulk. -> [B, *shape]

        Four numbers from one hash: Box and Muller's pair (cosine and sine) from 16 bits of radius and 16 of angle.
        """
        size = math.prod(shape)
        shorts = self._bits(-(-size // 4)).view(torch.int16).float()  # [B, >= size], -32768 to 32767
        half = shorts.shape[1] // 2
        radius = shorts[:, :half].add_(32768.5).mul_(2**-16).log_().mul_(-2).sqrt_()
        angle = shorts[:, half:].mul_(math.pi / 32768)
        pairs = torch.cat([angle.cos() * radius, angle.sin() * radius], 1)
        return pairs[:, :size].view(len(pairs), *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """int64 in [0, high). -> [B, *shape]. The bias is below high / 2**53."""
        return (self._bits(*shape) >> 11 & (2**53 - 1)) % high

    def signs(self, *shape: int) -> Tensor:
        """float32, -1 or 1. -> [B, *shape]"""
        return (self._bits(*shape) >> 40 & 1).float() * 2 - 1

    def generator(self, *labels: str | int) -> torch.Generator:
        """A CPU generator keyed by seed and labels alone: for what belongs to no example (shuffling)."""
        return torch.Generator().manual_seed(_digest(self.seed, "generator", *labels))

    def _bits(self, *shape: int) -> Tensor:
        """64 random bits per element. -> int64 [B, *shape]"""
        ids = self.example_ids.to(torch.int64)
        streams = _mix(_mix(ids * _GOLDEN + _digest(self.seed, "offset")) ^ _digest(self.seed, "stream"))
        counters = torch.arange(1, math.prod(shape) + 1, device=ids.device) * _GOLDEN
        return _mix(streams[:, None] + counters).view(len(ids), *shape)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose shifts must be made logical by a mask."""
    z = ((z >> 30).bitwise_and_(2**34 - 1)).bitwise_xor_(z).mul_(_MIX_1)
    z = ((z >> 27).bitwise_and_(2**37 - 1)).bitwise_xor_(z).mul_(_MIX_2)
    return ((z >> 31).bitwise_and_(2**33 - 1)).bitwise_xor_(z)


def _digest(seed: int, *labels: str | int) -> int:
    """A 63-bit number from a seed and labels: a number and its text differ, and so do ("ab",) and ("a", "b")."""
    texts = [f"s{label}" if isinstance(label, str) else f"i{int(label)}" for label in (int(seed), *labels)]
    text = "".join(f"{len(text)}:{text}" for text in texts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
