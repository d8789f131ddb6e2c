"""The tables of what a spec may name, gathered in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.build import Extended, Kinds, block_of, examine, refusals
from orchestrator.composition import beside
from orchestrator.errors import Place, Problem
from orchestrator.wording import one_of, shown


@dataclass(frozen=True)
class Tables:
    """What a spec may name; `cascades` are presets, each a tuple of attacks."""

    networks: Mapping[str, type]
    defenses: Mapping[str, type]
    attacks: Mapping[str, type]
    cascades: Mapping[str, Sequence[Any]]
    datasets: Mapping[str, type]
    training: type
    inputs: Mapping[str, type] = field(default_factory=dict)

    def blocks(self) -> dict[str, Kinds]:
        """What the blocks that may have holes are made of."""
        composing = beside(self)
        return {
            "network": self.networks,
            "defense": Extended(self.defenses, composing),
            "training": Extended(self.training, composing),
        }

    def attack_blocks(self, entries: Sequence[Any], at: Place) -> tuple[list[dict[str, Any]], list[Problem]]:
        """The normalised blocks of a list of attacks, each a name or a block, presets expanded."""
        blocks: list[dict[str, Any]] = []
        problems: list[Problem] = []
        for place, entry in enumerate(entries):
            found, wrong = self._attack(entry)
            blocks += found
            problems += [Problem((*at, place, *problem.at), problem.text) for problem in wrong]
        return blocks, problems

    def _attack(self, entry: Any) -> tuple[list[dict[str, Any]], list[Problem]]:
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        if isinstance(name, str) and name in self.cascades:
            if isinstance(entry, Mapping) and len(entry) > 1:
                return [], [Problem((), f"{name} is a preset and has no settings, got {shown(entry)}")]
            return [block_of(attack) for attack in self.cascades[name]], []
        if name is not None and not (isinstance(name, str) and name in self.attacks):
            at = ("name",) if isinstance(entry, Mapping) else ()
            return [], [Problem(at, one_of([*self.attacks, *self.cascades], name))]
        block, problems = examine(self.attacks, entry)
        return [block], problems or refusals(self.attacks, block)


def all_tables() -> Tables:
    """Those of this installation. Imported when they are asked for, since they bring torch with them."""
    from attacks import ATTACKS, CASCADES
    from defenses import DEFENSES, INPUTS, NETWORKS, Training
    from orchestrator.datasets import DATASETS

    return Tables(NETWORKS, DEFENSES, ATTACKS, CASCADES, DATASETS, Training, INPUTS)
