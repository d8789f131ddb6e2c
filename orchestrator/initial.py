"""Settings that are to be tried first (`search.initial`), matched with the holes they fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.coercion import number
from orchestrator.errors import Place, Problem
from orchestrator.holes import Choice, Hole, Numeric, Scalar, text_of
from orchestrator.wording import nearest, shown


@dataclass
class Initial:
    """One entry read against the holes of one space.

    `internal`: path -> coordinate, ready for a study's `enqueue_trial`; holes not named are left open. `missing` says
    which settings no hole of this space takes, `problems` which values a hole refuses; places are in the entry.
    """

    internal: dict[str, Any] = field(default_factory=dict)
    missing: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_initial(holes: Mapping[str, Hole], entry: Mapping[str, Any]) -> Initial:
    """Match an entry, nested like a spec (`{network: {name: resnet, depth: 8}}`) or in dotted paths.

    A path may be that of the column (`network.resnet.depth`, which chooses resnet) or leave out the options chosen
    (`network.depth`, where it is clear which).
    """
    found = Initial()
    values: dict[str, Scalar] = {}
    for path, at, value in sorted(_flattened("", (), entry), key=_choices_first):
        hole = _hole(path, value, holes, values, found, at)
        if hole is None:
            continue
        for wanted, given in (*((holes[choice], label) for choice, label in hole.conditions), (hole, value)):
            _set(wanted, given, at, values, found)
    found.internal = {path: holes[path].internal(value) for path, value in values.items()}
    return found


def _flattened(path: str, at: Place, value: Any) -> Iterator[tuple[str, Place, Any]]:
    if not isinstance(value, Mapping):
        yield path, at, value
        return
    for key, inner in value.items():
        longer = path if key == "each" else f"{path}.{key}".removeprefix(".")
        yield from _flattened(longer, (*at, key), inner)


def _choices_first(item: tuple[str, Place, Any]) -> tuple[bool, int]:
    return not item[0].endswith(".name"), item[0].count(".")


def _hole(
    path: str, value: Any, holes: Mapping[str, Hole], values: Mapping[str, Scalar], found: Initial, at: Place
) -> Hole | None:
    """The one hole a path means, given what is chosen so far; where there is none, that is noted."""
    fitting = [
        hole
        for hole in holes.values()
        if path == hole.path
        or (path in _short_paths(hole) and all(values.get(key, label) == label for key, label in hole.conditions))
    ]
    if len(fitting) > 1:  # the choice of a value or a range, and the range: the value tells which is meant
        accepting = [hole for hole in fitting if _checked(hole, value) is not None]
        fitting = [hole for hole in accepting if hole.path == path] or accepting or fitting[:1]
    if not fitting:
        known, seen = ", ".join(holes) or "none", path if path.isprintable() else shown(path)
        found.missing.append(Problem(at, f"{seen} is no hole; the holes are {known}{nearest(holes, path)}"))
        return None
    if len(fitting) > 1:
        names = ", ".join(hole.path for hole in fitting)
        found.problems.append(Problem(at, f"{path} may be any of {names}; write the one that is meant"))
        return None
    return fitting[0]


def _short_paths(hole: Hole) -> set[str]:
    """The path as it would be in a spec without the choices: their options left out; `.name` for a choice."""
    path = hole.path
    for choice, label in reversed(hole.conditions):
        path = choice + path.removeprefix(f"{choice}.{label}")
    return {path, f"{path}.name"} if isinstance(hole, Choice) else {path}


def _checked(hole: Hole, value: Any) -> tuple[Scalar] | None:
    """The value as the hole has it, in a tuple since it may be None; None where the hole refuses it."""
    try:
        return (_value(hole, value),)
    except ValueError:
        return None


def _value(hole: Hole, value: Any) -> Scalar:
    if isinstance(hole, Numeric):
        return hole.checked(number(value))
    if hole.column == "string" and not isinstance(value, str) and value is not None:
        return hole.checked(text_of(value))
    return hole.checked(number(value) if hole.column == "float" and isinstance(value, str) else value)


def _set(hole: Hole, value: Any, at: Place, values: dict[str, Scalar], found: Initial) -> None:
    try:
        checked = _value(hole, value)
    except ValueError as error:
        found.problems.append(Problem(at, f"{hole.path} {error}"))
        return
    if values.setdefault(hole.path, checked) != checked:
        text = f"{hole.path} cannot be both {shown(values[hole.path])} and {shown(checked)}"
        found.problems.append(Problem(at, text))
