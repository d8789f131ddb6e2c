"""Attacks to run in order, each on the examples that withstood those before it."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.pgd import PGD

CASCADES: dict[str, tuple[Attack, ...]] = {
    "strong_pgd": tuple(PGD(steps=40, restarts=5, loss=loss) for loss in ("cross_entropy", "margin")),
}
