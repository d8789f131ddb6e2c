"""Seeds for what is drawn anew at each place of a search, and for the trials of one configuration."""

from __future__ import annotations

import hashlib
import json

APART = 1_000_003  # between the seeds of a configuration: finalists have those just after the sweep's own


def seed_of(*parts: str | int) -> int:
    """A seed of 32 bits that follows from the parts alone, and from all of them."""
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).digest())


def trial_seeds(seed: int, count: int) -> list[int]:
    """The seeds with which each configuration of a search is trained; the sweep's own is the first."""
    return [seed + APART * turn for turn in range(count)]
