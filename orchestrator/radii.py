"""Radii and threats as they are written on a command line: numbers, or fractions such as 8/255."""

from __future__ import annotations

import math

from attacks.threat import NORMS, Threat
from orchestrator.coercion import number
from orchestrator.errors import UserError
from orchestrator.plausible_eps import refuse_eps
from orchestrator.wording import one_of


def read_eps(text: str | float, where: str = "--eps") -> float:
    """A radius > 0. Raises UserError, beginning with `where`."""
    try:
        return _radius(text)
    except ValueError:
        raise UserError(f"{where}: must be a number > 0 or a fraction such as 8/255, got {text!r}") from None


def read_threat(text: str) -> Threat:
    """A threat from NORM:EPS, such as linf:8/255. Raises UserError."""
    norm, colon, eps = text.partition(":")
    if not colon:
        raise UserError(f"--threat: must be NORM:EPS such as linf:8/255, got {text!r}")
    if norm not in NORMS:
        raise UserError(f"--threat: the norm {one_of(NORMS, norm)}")
    try:
        threat = Threat(norm, read_eps(eps, "--threat"))
        refuse_eps(norm, threat.eps)
    except ValueError as error:
        raise UserError(f"--threat: {error}") from None
    return threat


def refuse_levels(norm: str, levels: list[float], values: int | None = None) -> None:
    """Raises UserError where a radius is beyond the range of images of so many values."""
    for level in levels:
        try:
            refuse_eps(norm, read_eps(level), values)
        except ValueError as error:
            raise UserError(f"--eps: {str(error).removeprefix('eps: ')}") from None


def _radius(text: str | float) -> float:
    value = float(number(text) if isinstance(text, (int, float)) or "/" in text else float(text))
    if not (math.isfinite(value) and value > 0):
        raise ValueError
    return value
