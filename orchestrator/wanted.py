"""What a call of `evaluate` wants of a run: which attacks, on what, of which trials, under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import UserError
from orchestrator.protocols import Protocol, base_of, default_name, protocol
from orchestrator.radii import read_eps
from orchestrator.spec import Spec
from orchestrator.spec_models import EVALUATION_NAME, SPLITS
from orchestrator.tables import all_tables
from orchestrator.wording import dotted, one_of, shown

STAGE_SPLIT = {"search": "validation", "finalist": "test"}


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, of which trials (their ids, or the beginnings of them; none: all that were completed).

    Without a `name` it gets one made from what is measured.
    """

    protocol: Protocol
    name: str = ""
    trials: tuple[str, ...] = ()

    def within(self, spec: Spec) -> Wanted:
        """The same in a run of this spec, which says on how many examples where the call does not."""
        usual = {name: spec.evaluation.block(name).examples for name in ("final", "test")}
        measured = {**self.protocol, "examples": self.protocol["examples"] or usual}
        return replace(self, protocol=measured, name=self.name or default_name(measured))

    def split(self, stage: str) -> str:
        """The split on which a trial of a stage is measured."""
        return str(self.protocol["split"] or STAGE_SPLIT[stage])

    def count(self, evaluation: str) -> int | None:
        """On how many examples, of the rows that `final` or `test` measures on; None: on as many as it does."""
        given = self.protocol["examples"]
        found: int | None = given[evaluation] if isinstance(given, dict) else given
        return found


def wanted(
    attacks: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    trials: Sequence[str] = (),
    split: str | None = None,
    eps: Sequence[float | str] = (),
    examples: int | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> Wanted:
    """A call, checked as far as it can be without the run. Raises UserError, with the option that is wrong."""
    blocks = attack_blocks([attacks] if isinstance(attacks, (str, Mapping)) else list(attacks))
    if split is not None and split not in SPLITS:
        raise UserError(f"--split: {one_of(SPLITS, split)}")
    if examples is not None and examples < 1:
        raise UserError(f"--examples: must be a whole number >= 1, got {examples}")
    levels = sorted({read_eps(level) for level in eps})
    measured = protocol(split, examples, blocks, eps=levels, seed=seed)
    if name is not None and (not EVALUATION_NAME.fullmatch(name) or base_of(name) in ("rung", "final", "test")):
        rule = "must be letters, digits, '_' and '-', at most 64, no '-' in front, and none of rung, final, test"
        raise UserError(f"--name: {rule}, got {shown(name)}")
    return Wanted(measured, name or "", tuple(trials))


def attack_blocks(attacks: Sequence[Any]) -> list[dict[str, Any]]:
    """The normalised blocks of attacks given by name or as mappings. Raises UserError."""
    if not attacks:
        raise UserError("--attack: at least one is needed, such as strong_pgd or '{name: pgd, steps: 200}'")
    blocks, problems = all_tables().attack_blocks(attacks, ())
    if problems:
        lines = (f"--attack {shown(attacks[int(p.at[0])])}: {_inner(p.at[1:])}{p.text}" for p in problems)
        raise UserError("\n".join(lines))
    return blocks


def _inner(at: Sequence[str | int]) -> str:
    return f"{dotted(tuple(at))}: " if at else ""
