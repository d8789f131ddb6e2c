"""The figures that a search goes by, from rows of `attacks`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

AREA_FRACTIONS = (0.25, 0.5, 1.0)  # of eps: robust_area is the mean robust accuracy at these


def metrics_of(rows: Iterable[Mapping[str, Any]], eps: float) -> dict[str, float]:
    """Clean and robust accuracy of one evaluation at `eps`, and robust_area where eps/4 and eps/2 were measured.

    They are what the last attack of the cascade left. The same rows give the same bits, whoever reads them.
    """
    last: dict[float, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["position"]):
        last[row["eps"]] = row
    found = {name: float(last[eps][name]) for name in ("clean_accuracy", "robust_accuracy")}
    levels = [eps * fraction for fraction in AREA_FRACTIONS]
    if all(level in last for level in levels):
        found["robust_area"] = sum(float(last[level]["robust_accuracy"]) for level in levels) / len(levels)
    return found
