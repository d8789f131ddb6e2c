"""An eps that no attacker needs: most often 8 was written where 8/255 was meant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import Problem

LARGEST = 3 * 1024 * 1024  # values of the largest image thought of where the data are not at hand


def refuse_eps(norm: str, eps: float, values: int | None = None) -> None:
    """Raises ValueError where `eps` goes beyond what lies between a black and a white image of so many values."""
    most = {"linf": 1.0, "l2": math.sqrt(values or LARGEST)}.get(norm, float(values or LARGEST))
    if eps <= most:
        return
    size = f" for images of {values} values" if values and norm != "linf" else ""
    raise ValueError(f"eps: {beyond_the_range(eps, f'{most:.4g} for {norm}{size}')}")


def beyond_the_range(distance: float, most: str = "1 for linf") -> str:
    """What to say of a distance that is greater than `most`, without the name of the key."""
    guess = f"; did you mean {distance:g}/255?" if 1 < distance <= 255 else ""
    return f"must be a fraction of the pixel range, at most {most}, got {distance:g}{guess}"


def far_distances(block: Mapping[str, Any], norm: str) -> list[Problem]:
    """The settings of a block that go beyond the range of pixels under linf, those of attacks inside it included."""
    found = []
    for key, value in block.items() if norm == "linf" else ():
        if isinstance(value, Mapping):
            found += [Problem((key, *problem.at), problem.text) for problem in far_distances(value, norm)]
        elif key in ("eps", "step_size") and isinstance(value, (int, float)) and value > 1:
            found.append(Problem((key,), beyond_the_range(value)))
    return found
