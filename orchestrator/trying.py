"""What the classes of the blocks refuse, found by trying: each hole's values, each combination of blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.build import Kinds, examine, refusals
from orchestrator.errors import Place, Problem
from orchestrator.holes import Choice, Hole, Scalar
from orchestrator.plausible_eps import far_distances
from orchestrator.template import Fields, Filling, Fixed, Leaf, Pick, refs, resolve
from orchestrator.wording import shown

MOST_COMBINATIONS = 256  # of blocks that are tried when a spec is loaded


def attempts(template: Fields) -> Iterator[dict[str, Scalar]]:
    """A value for every hole: those at their first, then each hole's others, then combinations of blocks."""
    holes = {hole.path: hole for hole in template.holes()}
    probes = {path: hole.probes() for path, hole in holes.items()}
    first = {path: values[0] for path, values in probes.items()}
    return ({**first, **forced} for forced in _forced(holes, probes))


@dataclass
class Probing:
    """Tries values on the blocks of one template. `kinds` gives the table (or class) of each of its parts.

    Parts (network, defense, training) are tried apart, each again only where something changed that it depends on:
    most attempts change one hole.
    """

    template: Fields
    facts: Mapping[str, Any]
    kinds: Mapping[str, Kinds]
    _seen: set[tuple[Any, ...]] = field(default_factory=set)

    def problems(self) -> list[Problem]:
        """What is refused; places are those of the spec, each once."""
        nodes = self.template.fields
        needed = {part: self._needed(part) for part in nodes}
        paths = {part: [hole.path for other in needed[part] for hole in nodes[other].holes()] for part in nodes}
        found: dict[Place, Problem] = {}
        for values in attempts(self.template):
            for part in nodes:
                if self._is_new(part, [values[path] for path in paths[part]]):
                    for problem in self._attempt(part, needed[part], values):
                        found.setdefault(problem.at, problem)
        return list(found.values())

    def _needed(self, part: str) -> list[str]:
        """The part and those that it takes values from, directly or not: all, where a ref leads nobody knows where."""
        nodes, found = self.template.fields, [part]
        for place in found:  # grows while it is walked
            targets = {ref.target.partition(".")[0] for ref in refs(nodes[place])} - set(self.facts)
            if not targets <= set(nodes):
                return list(nodes)
            found += targets - set(found)
        return [other for other in nodes if other in found]  # the order in which values are asked for

    def _is_new(self, part: str, values: Sequence[Any]) -> bool:
        before = len(self._seen)
        self._seen.add((part, *values))
        return len(self._seen) > before

    def _attempt(self, part: str, needed: Sequence[str], values: Mapping[str, Scalar]) -> list[Problem]:
        filling = Filling(lambda path, hole: values[path])
        blocks = {other: self.template.fields[other].fill(filling, (other,)) for other in needed}
        if not self._is_new(f"{part}, filled", [*filling.params.items()]):
            return []
        problems = resolve(blocks, filling, self.facts) or self._refused(part, blocks[part])
        return [_moved(problem, filling) for problem in problems]

    def _refused(self, part: str, block: dict[str, Any]) -> list[Problem]:
        wrong = examine(self.kinds[part], block)[1] or refusals(self.kinds[part], block)
        if part in ("defense", "training"):
            wrong = wrong or far_distances(block, self.facts["threat"]["norm"])
        return [Problem((part, *problem.at), problem.text) for problem in wrong]


def _forced(holes: Mapping[str, Hole], probes: Mapping[str, Sequence[Scalar]]) -> Iterator[dict[str, Scalar]]:
    """Values for some holes; the others are at their first."""
    yield {}
    yield {path: probes[path][-1] for path, hole in holes.items() if not isinstance(hole, Choice)}
    for hole in holes.values():
        yield from ({**dict(hole.conditions), hole.path: value} for value in probes[hole.path])
    opening = {path for hole in holes.values() for path, _ in hole.conditions} | {"network", "defense"}
    choices = [path for path in probes if path in opening]
    combinations = itertools.product(*(probes[path] for path in choices))
    for labels in itertools.islice(combinations, MOST_COMBINATIONS):
        yield dict(zip(choices, labels, strict=True))


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
