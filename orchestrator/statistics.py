"""Intervals for accuracies."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), which stays inside [0, 1] and is right near its ends.

    `successes` may be a sum of probabilities (a stochastic model's expected number): the interval is then wider
    than it need be. Raises ValueError unless 0 <= successes <= n and n > 0.
    """
    if n <= 0 or not -1e-9 * n <= successes <= n * (1 + 1e-9):
        raise ValueError(f"successes: must be from 0 to n with n > 0, got {successes!r} of {n!r}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = min(max(successes / n, 0.0), 1.0)
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if share == 0 else (centre - spread) / scale
    high = 1.0 if share == 1 else (centre + spread) / scale
    return max(low, 0.0), min(high, 1.0)
