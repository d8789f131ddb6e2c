"""Blocks of a spec with holes in them: trees that, filled, become plain normalised blocks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.coercion import coerce, number
from orchestrator.errors import Place, Problem
from orchestrator.holes import Choice, Hole, Numeric, Scalar
from orchestrator.wording import shown

Suggest = Callable[[str, Hole], Any]  # (path, hole) -> value


class Filling:
    """One pass over a template: what was asked, and from where in the spec each part of the result came."""

    def __init__(self, suggest: Suggest) -> None:
        self._suggest = suggest
        self.params: dict[str, Scalar] = {}
        self.origins: dict[Place, Node] = {}  # place in the filled blocks -> node
        self.refs: dict[Place, Ref] = {}

    def ask(self, hole: Hole) -> Scalar:
        """Raises ValueError where what is suggested is outside the hole."""
        try:
            self.params[hole.path] = hole.checked(self._suggest(hole.path, hole))
        except ValueError as error:
            raise ValueError(f"{hole.path}: {error}") from None
        return self.params[hole.path]


@dataclass(frozen=True)
class Node(ABC):
    """A part of a template; `at` is its place in the spec."""

    at: Place

    def fill(self, filling: Filling, at: Place) -> Any:
        """The plain value; `at` is its place in the filled blocks."""
        filling.origins[at] = self
        return self._filled(filling, at)

    @abstractmethod
    def _filled(self, filling: Filling, at: Place) -> Any: ...

    @abstractmethod
    def form(self) -> Any:
        """As it is written in a spec, in normal form."""

    def children(self) -> Iterator[Node]:
        """The nodes directly inside."""
        return iter(())

    def holes(self) -> Iterator[Hole]:
        """Every hole inside, in order, those of options not chosen too."""
        for child in self.children():
            yield from child.holes()

    def size(self) -> int | None:
        """How many ways there are to fill it; None for a continuum."""
        sizes = [child.size() for child in self.children()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)


@dataclass(frozen=True)
class Fixed(Node):
    """A value without holes."""

    value: Any

    def _filled(self, filling: Filling, at: Place) -> Any:
        return self.value

    def form(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Leaf(Node):
    """A hole that a number fills."""

    hole: Numeric

    def _filled(self, filling: Filling, at: Place) -> Any:
        return filling.ask(self.hole)

    def form(self) -> Any:
        return self.hole.form()

    def holes(self) -> Iterator[Hole]:
        yield self.hole

    def size(self) -> int | None:
        return self.hole.size()


@dataclass(frozen=True)
class Pick(Node):
    """A choice: one of several templates, in the order of the hole's labels."""

    hole: Choice
    options: tuple[Node, ...]

    def _filled(self, filling: Filling, at: Place) -> Any:
        label = filling.ask(self.hole)
        return self.options[self.hole.labels.index(label)].fill(filling, at)

    def form(self) -> Any:
        return self.hole.form()

    def children(self) -> Iterator[Node]:
        return iter(self.options)

    def holes(self) -> Iterator[Hole]:
        yield self.hole
        yield from super().holes()

    def size(self) -> int | None:
        sizes = [option.size() for option in self.options]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True)
class Items(Node):
    """A list."""

    items: tuple[Node, ...]

    def _filled(self, filling: Filling, at: Place) -> Any:
        return [item.fill(filling, (*at, position)) for position, item in enumerate(self.items)]

    def form(self) -> Any:
        return [item.form() for item in self.items]

    def children(self) -> Iterator[Node]:
        return iter(self.items)


@dataclass(frozen=True)
class Fields(Node):
    """A mapping, or a block with `name`; `is_each` where it must be written below the word `each`."""

    fields: Mapping[str, Node]
    name: str | None = None
    is_each: bool = False

    def _filled(self, filling: Filling, at: Place) -> Any:
        values = {key: node.fill(filling, (*at, key)) for key, node in self.fields.items()}
        return values if self.name is None else {"name": self.name, **values}

    def form(self) -> Any:
        written = {key: node.form() for key, node in self.fields.items()}
        if self.is_each:
            return {"each": written}
        return written if self.name is None else {"name": self.name, **written}

    def children(self) -> Iterator[Node]:
        return iter(self.fields.values())


@dataclass(frozen=True)
class Ref(Node):
    """A value taken from elsewhere in the spec, times a number."""

    target: str
    times: float
    hint: Any

    def _filled(self, filling: Filling, at: Place) -> Any:
        filling.refs[at] = self
        return self

    def form(self) -> Any:
        return {"ref": self.target} if self.times == 1 else {"ref": self.target, "times": self.times}

    def multiplied(self, value: Any) -> Any:
        """The value found at the target as the field wants it; raises ValueError."""
        if self.times == 1:
            return coerce(self.hint, value)
        try:
            return coerce(self.hint, self.times * number(value))
        except ValueError as error:
            raise ValueError(f"{error} ({self.target} = {shown(value)}, times {shown(self.times)})") from None


def refs(node: Node) -> Iterator[Ref]:
    """The values inside that are taken from elsewhere."""
    if isinstance(node, Ref):
        yield node
    for child in node.children():
        yield from refs(child)


def has_refs(node: Node) -> bool:
    """Whether a value somewhere inside is taken from elsewhere."""
    return any(True for _ in refs(node))


def resolve(blocks: dict[str, Any], filling: Filling, facts: Mapping[str, Any]) -> list[Problem]:
    """Put the values in place of the refs in `blocks`; what cannot be is said with its place in `blocks`."""
    problems = []
    for at in filling.refs:
        try:
            _follow(at, blocks, filling, facts, ())
        except ValueError as error:
            problems.append(Problem(at, str(error)))
    return problems


def _follow(
    at: Place, blocks: dict[str, Any], filling: Filling, facts: Mapping[str, Any], behind: tuple[str, ...]
) -> Any:
    """The value at a place of the blocks, its ref resolved first."""
    holder: Any = blocks
    for key in at[:-1]:
        holder = holder[key]
    ref = holder[at[-1]]
    if not isinstance(ref, Ref):
        return ref
    if ref.target in behind:
        raise ValueError(f"refers to itself: {' -> '.join([*behind, ref.target])}")
    found = _found(ref.target, blocks, filling, facts)
    value = _follow(found, blocks, filling, facts, (*behind, ref.target)) if isinstance(found, tuple) else found[0]
    holder[at[-1]] = ref.multiplied(value)
    return holder[at[-1]]


def _found(target: str, blocks: dict[str, Any], filling: Filling, facts: Mapping[str, Any]) -> Place | list[Any]:
    """The place of a target in the blocks, or its value in a list where it is a fact or the column of a hole."""
    keys: list[str | int] = []
    value: Any = {**facts, **blocks}
    for key in target.split("."):
        position: str | int = int(key) if isinstance(value, list) and key.isdecimal() else key
        inside = position in value if isinstance(value, dict) else isinstance(position, int) and position < len(value)
        if not inside and target in filling.params:
            return [filling.params[target]]
        if not inside:
            known = ", ".join(value) if isinstance(value, dict) else "nothing"
            raise ValueError(f"ref: there is no {target} in this configuration (at {key!r}; there: {known})")
        value = value[position]
        keys.append(position)
    if isinstance(value, (dict, list)):
        raise ValueError(f"ref: {target} is no single value")
    return tuple(keys) if keys[0] in blocks else [value]
