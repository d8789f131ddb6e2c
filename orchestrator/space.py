"""The space of a study: the blocks of one cell with their holes, and the configurations that fill them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.build import Kinds, examine, refusals
from orchestrator.errors import Place, Problem, SpecError
from orchestrator.holes import Choice, Hole, Scalar, united
from orchestrator.plausible_eps import far_distances
from orchestrator.template import Fields, Filling, Fixed, Leaf, Pick, Suggest, resolve
from orchestrator.wording import dotted, shown

MOST_COMBINATIONS = 256  # of blocks that are tried when a spec is loaded


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
        blocks, filling = self._filled(suggest)
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
        found: dict[Place, Problem] = {}
        probes = {path: hole.probes() for path, hole in self.holes().items()}
        first = {path: values[0] for path, values in probes.items()}
        for forced in self._attempts(probes):
            for problem in self._attempt({**first, **forced}, kinds):
                found.setdefault(problem.at, problem)
        return list(found.values())

    def tried(self) -> Iterator[Configuration]:
        """The configurations that `problems` looks at, those whose refs find something."""
        probes = {path: hole.probes() for path, hole in self.holes().items()}
        first = {path: values[0] for path, values in probes.items()}
        for forced in self._attempts(probes):
            values = {**first, **forced}
            with contextlib.suppress(SpecError):
                yield self.configure(lambda path, hole, values=values: values[path])  # type: ignore[misc]

    def _filled(self, suggest: Suggest) -> tuple[dict[str, Any], Filling]:
        filling = Filling(suggest)
        return self.template.fill(filling, ()), filling

    def _attempts(self, probes: Mapping[str, Sequence[Scalar]]) -> Iterator[dict[str, Scalar]]:
        """Values for some holes; the others are at their first."""
        holes = self.holes()
        yield {}
        yield {path: probes[path][-1] for path, hole in holes.items() if not isinstance(hole, Choice)}
        for hole in holes.values():
            yield from ({**dict(hole.conditions), hole.path: value} for value in probes[hole.path])
        opening = {path for hole in holes.values() for path, _ in hole.conditions} | {"network", "defense"}
        choices = [path for path in probes if path in opening]
        combinations = itertools.product(*(probes[path] for path in choices))
        for labels in itertools.islice(combinations, MOST_COMBINATIONS):
            yield dict(zip(choices, labels, strict=True))

    def _attempt(self, values: Mapping[str, Scalar], kinds: Mapping[str, Kinds]) -> list[Problem]:
        blocks, filling = self._filled(lambda path, hole: values[path])
        if problems := resolve(blocks, filling, self.facts):
            return [_moved(problem, filling) for problem in problems]
        found = []
        for part, block in blocks.items():
            wrong = examine(kinds[part], block)[1] or refusals(kinds[part], block)
            if part in ("defense", "training"):
                wrong = wrong or far_distances(block, self.facts["threat"]["norm"])
            found += [_moved(Problem((part, *problem.at), problem.text), filling) for problem in wrong]
        return found


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


def _moved(problem: Problem, filling: Filling) -> Problem:
    """A problem of the filled blocks, at the place of the spec that the refused value came from."""
    at = problem.at
    while at not in filling.origins:
        at = at[:-1]
    node = filling.origins[at]
    if isinstance(node, (Leaf, Pick)):
        value = shown(filling.params[node.hole.path])
        return Problem(node.at, f"the hole {shown(node.hole.form())} allows {value}, but it {problem.text}")
    if isinstance(node, Fixed):
        return Problem(node.at, problem.text)
    asked = ", ".join(f"{path} = {shown(value)}" for path, value in filling.params.items())
    return Problem((*node.at, *problem.at[len(at) :]), f"{problem.text}{f' (tried with {asked})' if asked else ''}")
