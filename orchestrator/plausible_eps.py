"""An eps that no attacker needs: most often 8 was written where 8/255 was meant."""

from __future__ import annotations

import math

LARGEST = 3 * 1024 * 1024  # values of the largest image thought of where the data are not at hand


def refuse_eps(norm: str, eps: float, values: int | None = None) -> None:
    """Raises ValueError where `eps` goes beyond what lies between a black and a white image of so many values."""
    most = {"linf": 1.0, "l2": math.sqrt(values or LARGEST)}.get(norm, float(values or LARGEST))
    if eps <= most:
        return
    size = f" for images of {values} values" if values and norm != "linf" else ""
    guess = f"; did you mean {eps:g}/255?" if 1 < eps <= 255 else ""
    raise ValueError(
        f"eps: must be a fraction of the pixel range, at most {most:.4g} for {norm}{size}, got {eps:g}{guess}"
    )
