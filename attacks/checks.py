"""Checks of hyperparameters, with messages that say what was seen and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection


def one_of(key: str, value: object, known: Collection[str]) -> None:
    """Raises ValueError, listing the known names and the nearest, where `value` is none of them."""
    if value in known:
        return
    nearest = difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    raise ValueError(f"{key}: must be one of {', '.join(known)}, got {value!r}{hint}")


def at_least(key: str, value: int, low: int) -> None:
    """Raises ValueError where `value` is not a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{key}: must be a whole number >= {low}, got {value!r}")


def positive(key: str, value: float) -> None:
    """Raises ValueError where `value` is not finite and > 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{key}: must be finite and > 0, got {value!r}")


def a_share(key: str, value: float) -> None:
    """Raises ValueError where `value` is not in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{key}: must be above 0 and at most 1, got {value!r}")
