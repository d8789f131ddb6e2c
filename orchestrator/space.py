"""The space of a study: the blocks of one cell with their holes, and the configurations that fill them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.build import Kinds
from orchestrator.errors import Problem, SpecError
from orchestrator.holes import Choice, Hole, Scalar, united
from orchestrator.template import Fields, Filling, Suggest, resolve
from orchestrator.trying import Probing, attempts
from orchestrator.wording import dotted, shown


@dataclass(frozen=True)
class Configuration:
    """One point of a space: three normalised blocks (equal settings are equal dicts) and what was asked for them."""

    network: dict[str, Any]
    defense: dict[str, Any]
    training: dict[str, Any]
    params: dict[str, Scalar]  # `param.*` without the prefix; only holes whose conditions hold


@dataclass(frozen=True)
class Dimension:
    """A hole in words."""

    path: str
    kind: str
    range: str
    condition: str


@dataclass(frozen=True)
class Space:
    """`template` holds the blocks network, defense and training; `facts` are what a ref may name beside them."""

    template: Fields
    facts: Mapping[str, Any]

    def holes(self) -> dict[str, Hole]:
        """Every hole by path, in the order in which they are asked for."""
        return {hole.path: hole for hole in self.template.holes()}

    def configure(self, suggest: Suggest) -> Configuration:
        """A configuration from `suggest(path, hole) -> value`, which is called for holes whose conditions hold only.

        Raises ValueError where a value is outside its hole, SpecError where a ref finds nothing.
        """
        filling = Filling(suggest)
        blocks = self.template.fill(filling, ())
        if problems := resolve(blocks, filling, self.facts):
            raise SpecError("\n".join(f"{dotted(problem.at)}: {problem.text}" for problem in problems))
        return Configuration(**blocks, params=filling.params)

    def dimensions(self) -> list[Dimension]:
        """The holes in words; `pandas.DataFrame(space.dimensions())` is a table of them."""
        return [_dimension(hole) for hole in self.holes().values()]

    def size(self) -> int | None:
        """How many configurations there are; None where a hole is continuous."""
        return self.template.size()

    def columns(self) -> dict[str, str]:
        """The type of each `param.*` column, by path: int, float, bool or string."""
        return {path: hole.column for path, hole in self.holes().items()}

    def problems(self, kinds: Mapping[str, Kinds]) -> list[Problem]:
        """What the classes of the blocks refuse, found by trying each hole's values and each combination of blocks.

        `kinds` gives the table (or class) of network, defense and training. Places are those of the spec.
        """
        return Probing(self.template, self.facts, kinds).problems()

    def tried(self) -> Iterator[Configuration]:
        """The configurations that `problems` looks at, those whose refs find something."""
        for values in attempts(self.template):
            with contextlib.suppress(SpecError):
                yield self.configure(lambda path, hole, values=values: values[path])  # type: ignore[misc]


def united_columns(spaces: Sequence[Space]) -> dict[str, str]:
    """The columns of several spaces in one table: int with float is float, any other difference is string."""
    kinds: dict[str, set[str]] = {}
    for space in spaces:
        for path, column in space.columns().items():
            kinds.setdefault(path, set()).add(column)
    return {path: united(columns) for path, columns in kinds.items()}


def _dimension(hole: Hole) -> Dimension:
    written = hole.form()
    beside = "".join(f", {key} {shown(value)}" for key, value in written.items() if key != hole.kind)
    values = hole.labels if isinstance(hole, Choice) else written[hole.kind]
    condition = " and ".join(f"{path} = {label}" for path, label in hole.conditions)
    return Dimension(hole.path, hole.kind, f"{shown(list(values))}{beside}", condition)
