"""Every configuration of a finite space, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.holes import Hole, Scalar
from orchestrator.points import Points
from orchestrator.space import Space


class GridPoints(Points):
    """The configurations in the order of a spec, the last hole changing fastest; from the start again after the last.

    Holes that do not hold in a configuration are no part of it, so none comes twice. Raises ValueError, naming the
    holes, for a space with a hole that has no step.
    """

    def __init__(self, space: Space) -> None:
        if without_step := endless(space):
            raise ValueError(f"grid needs holes with a step or a list of values, unlike {', '.join(without_step)}")
        self._rest = _configurations(space)
        self._known: list[dict[str, Any]] = []

    def point(self, place: int) -> dict[str, Any]:
        while len(self._known) <= place:
            found = next(self._rest, None)
            if found is None:
                return self._known[place % len(self._known)]
            self._known.append(found)
        return self._known[place]


def endless(space: Space) -> list[str]:
    """The holes of which a grid cannot try every value, by path."""
    return [path for path, hole in space.holes().items() if hole.size() is None]


def _configurations(space: Space) -> Iterator[dict[str, Any]]:
    """Goes through all choices as through a tree: which holes there are depends on the values of those before."""
    turns: list[int] = []
    while True:
        given: dict[str, Any] = {}
        sizes: list[int] = []

        def suggest(path: str, hole: Hole, given: dict[str, Any] = given, sizes: list[int] = sizes) -> Scalar:
            values = hole.values()
            if len(sizes) == len(turns):
                turns.append(0)
            value = values[turns[len(sizes)]]
            sizes.append(len(values))
            given[path] = hole.internal(value)
            return value

        space.configure(suggest)
        yield given
        del turns[len(sizes) :]
        while turns and turns[-1] + 1 == sizes[len(turns) - 1]:
            turns.pop()
        if not turns:
            return
        turns[-1] += 1
