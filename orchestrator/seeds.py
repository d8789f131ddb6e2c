"""Seeds for what is drawn anew at each place of a search."""

from __future__ import annotations

import hashlib
import json


def seed_of(*parts: str | int) -> int:
    """A seed of 32 bits that follows from the parts alone, and from all of them."""
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).digest())
