"""Attacks that are not made for the norm of a threat: refused before anything is trained or attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.build import make
from orchestrator.cells import Cell
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from orchestrator.cascade import Stage
    from orchestrator.tables import Tables


def refuse_norm(stages: Sequence[Stage], norm: str) -> None:
    """Raises ValueError where one of the attacks does not take `norm`."""
    from attacks.attack import norms_of

    for stage in stages:
        if norm not in norms_of(stage.attack):
            raise ValueError(f"attacks: {_not_for(stage.name, norms_of(stage.attack), norm)}")


def norm_problems(
    attacks: Mapping[str, Sequence[Mapping[str, Any]]], cells: Sequence[Cell], tables: Tables
) -> list[Problem]:
    """Attacks of an evaluation, those of presets too, that do not take the norm of every cell's threat."""
    from attacks.attack import norms_of

    problems = []
    for norm in dict.fromkeys(cell.threat.norm for cell in cells):
        for evaluation, blocks in attacks.items():
            for place, block in enumerate(blocks):
                for attack in tables.cascades.get(block["name"]) or [make(tables.attacks, block)]:
                    if norm not in (norms := norms_of(attack)):
                        at = ("evaluation", evaluation, "attacks", place)
                        problems.append(Problem(at, _not_for(attack.name, norms, norm)))
    return problems


def _not_for(name: str, norms: Sequence[str], norm: str) -> str:
    return f"{name} is for threats in {' or '.join(norms)}, got one in {norm}"
