"""Attacks in order, under one name: survivors of each go on to the next."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.pgd import PGD

CASCADES: dict[str, tuple[Attack, ...]] = {
    "strong_pgd": (PGD(steps=40, restarts=5), PGD(steps=40, restarts=5, loss="margin")),
}
