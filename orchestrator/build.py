"""Blocks of a spec (`{name: resnet, depth: 8}`) and the frozen dataclasses they stand for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, replace
from typing import Any, TypeAlias, get_args, get_type_hints

from orchestrator.coercion import coerce, is_settable, plain, thawed
from orchestrator.errors import Place, Problem, SpecError
from orchestrator.wording import dotted, nearest, one_of, shown

Kinds: TypeAlias = "Mapping[str, type] | type | Extended"
"""What a block may be: a table of dataclasses chosen by the key `name`, one dataclass (then no `name`), or such kinds
with more keys than their fields."""


@dataclass(frozen=True)
class Setting:
    """A field of a dataclass as a key of a spec. `kinds` is set where the value is a block itself, or (`is_list`) a
    list of blocks. `is_left_out`: where it is not given, it is not filled in.
    """

    name: str
    hint: Any
    is_required: bool
    default: Any
    kinds: Kinds | None
    is_list: bool = False
    is_left_out: bool = False

    def takes_null(self) -> bool:
        """Whether a block may be left out."""
        return type(None) in get_args(self.hint) or not (self.is_required or self.default is not None)


@dataclass(frozen=True, eq=False)
class Extended:
    """Kinds whose blocks may hold more: the keys of `beside`, by name.

    `finish(instance, **values of beside)` makes of both what the block stands for; without it, that is the instance
    alone. `is_partial`: no field is filled in, and the class has no say, since something else completes the block.
    """

    kinds: Mapping[str, type] | type
    beside: Mapping[str, Setting]
    finish: Callable[..., Any] | None = None
    is_partial: bool = False

    def keys(self, kind: type) -> dict[str, Setting]:
        own = settings(kind)
        if self.is_partial:
            own = {name: replace(setting, is_left_out=True) for name, setting in own.items()}
        return {**own, **self.beside}


def of_kinds(kinds: Kinds) -> Mapping[str, type] | type:
    """The table or class itself."""
    return kinds.kinds if isinstance(kinds, Extended) else kinds


def keys_of(kinds: Kinds, kind: type) -> dict[str, Setting]:
    """The keys a block of this class may have among these kinds, by name."""
    return kinds.keys(kind) if isinstance(kinds, Extended) else settings(kind)


def is_off(value: Any) -> bool:
    """Whether a block that may be left out is: null, or the word none."""
    return value is None or value == "none"


def make(kinds: Kinds, block: str | Mapping[str, Any], where: str = "") -> Any:
    """The instance that a block stands for; a mere name is a block without settings.

    Raises SpecError, all problems in it, each line beginning with `where` ("sweeps/a.yaml:3 network") and the key.
    """
    values = normalised(kinds, block, where)
    _raise(refusals(kinds, values), where)
    return _construct(kinds, values)


def normalised(kinds: Kinds, block: str | Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The block with every default filled in and every value of its field's type, as JSON values; `name` comes first.

    Equal settings give equal dicts whatever way they were written. Raises SpecError.
    """
    values, problems = examine(kinds, block)
    _raise(problems, where)
    return values


def look_up(kinds: Mapping[str, type], name: Any) -> type:
    """The class a name stands for: the one place where names are looked up. Raises ValueError with the nearest name."""
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(one_of(kinds, name))
    return kinds[name]


@functools.cache
def settings(kind: type) -> dict[str, Setting]:
    """The keys a block of this class may have, by name.

    A field that no spec can give (an object such as a Threat) is none of them. `metadata={"kinds": TABLE}` says
    that the value of a field is a block itself.
    """
    hints = get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        kinds = field.metadata.get("kinds")
        if field.init and (kinds is not None or is_settable(hints[field.name])):
            found[field.name] = _setting(field, hints[field.name], kinds)
    return found


def examine(kinds: Kinds, block: str | Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The normalised block, as far as it goes, and what is wrong with it."""
    if problem := unopenable(kinds, block):
        return {}, [problem]
    kind, given = _opened(kinds, block)
    known = keys_of(kinds, kind)
    problems = [Problem((key,), unknown_key(known, key)) for key in given if key not in known]
    values: dict[str, Any] = {} if isinstance(of_kinds(kinds), type) else {"name": _name(block)}
    for setting in known.values():
        if setting.is_left_out and setting.name not in given:
            continue
        values[setting.name], wrong = _value(setting, given)
        problems += [Problem((setting.name, *problem.at), problem.text) for problem in wrong]
    return values, problems


def refusals(kinds: Kinds, values: Mapping[str, Any]) -> list[Problem]:
    """What the dataclass itself says against a normalised block (its ValueErrors, "field: what is wrong")."""
    kind, given = _opened(kinds, values)
    problems = []
    for setting in keys_of(kinds, kind).values():
        if setting.kinds is not None and given.get(setting.name) is not None:
            for at, block in _blocks(setting, given[setting.name]):
                problems += [Problem((*at, *problem.at), problem.text) for problem in refusals(setting.kinds, block)]
    if problems or (isinstance(kinds, Extended) and kinds.is_partial):
        return problems
    try:
        _construct(kinds, values)
    except (ValueError, TypeError) as error:
        field, colon, text = str(error).partition(": ")
        return [Problem((field,), text) if colon and field in keys_of(kinds, kind) else Problem((), str(error))]
    return []


def _blocks(setting: Setting, value: Any) -> list[tuple[Place, Any]]:
    """The blocks that a setting holds, with their places."""
    if not setting.is_list:
        return [((setting.name,), value)]
    return [((setting.name, place), block) for place, block in enumerate(value)]


def block_of(instance: Any) -> dict[str, Any]:
    """The normalised block of an instance of a class with a `name`: the way back of `make`."""
    kind: Any = type(instance)
    values = {"name": kind.name}
    for setting in settings(kind).values():
        value = getattr(instance, setting.name)
        is_block = setting.kinds is not None and value is not None
        values[setting.name] = block_of(value) if is_block else plain(value)
    return values


def unknown_key(known: Mapping[str, Any], key: str) -> str:
    """What to say of a key that is not known."""
    keys = f"the keys are {', '.join(known)}" if known else "there are no keys here"
    return f"unknown key; {keys}{nearest(known, key)}"


def problem_line(where: str, problem: Problem) -> str:
    path = dotted(problem.at)
    glue = "." if where and path and not path.startswith("[") else ""
    place = f"{where}{glue}{path}"
    return f"{place}: {problem.text}" if place else problem.text


def _raise(problems: list[Problem], where: str) -> None:
    if problems:
        raise SpecError("\n".join(problem_line(where, problem) for problem in problems))


def _name(block: str | Mapping[str, Any]) -> Any:
    return block if isinstance(block, str) else block.get("name")


def unopenable(kinds: Kinds, block: Any) -> Problem | None:
    """Why nobody can say which class a block is of, if so."""
    kinds = of_kinds(kinds)
    is_table = not isinstance(kinds, type)
    if not isinstance(block, Mapping) and not (is_table and isinstance(block, str)):
        return Problem((), f"must be a mapping{' with a name' if is_table else ''}, got {shown(block)}")
    if isinstance(kinds, type):
        return None
    if isinstance(block, Mapping) and "name" not in block:
        return Problem(("name",), f"is required: one of {', '.join(kinds)}")
    try:
        look_up(kinds, _name(block))
    except ValueError as error:
        return Problem(() if isinstance(block, str) else ("name",), str(error))
    return None


def _opened(kinds: Kinds, block: str | Mapping[str, Any]) -> tuple[type, dict[str, Any]]:
    """The class of a block and its settings without `name`."""
    given = {} if isinstance(block, str) else dict(block)
    kinds = of_kinds(kinds)
    if isinstance(kinds, type):
        return kinds, given
    given.pop("name", None)
    return look_up(kinds, _name(block)), given


def _setting(field: dataclasses.Field[Any], hint: Any, kinds: Kinds | None) -> Setting:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if kinds is not None and dataclasses.is_dataclass(default):
        default = block_of(default)
    return Setting(field.name, hint, default is MISSING, None if default is MISSING else plain(default), kinds)


def _value(setting: Setting, given: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    if setting.name not in given:
        return setting.default, [Problem((), "is required")] if setting.is_required else []
    value = given[setting.name]
    if setting.kinds is not None and setting.takes_null() and is_off(value):
        return None, []
    if setting.kinds is not None and setting.is_list:
        return _listed(setting.kinds, value)
    if setting.kinds is not None:
        return examine(setting.kinds, value)
    try:
        return coerce(setting.hint, value), []
    except ValueError as error:
        return None, [Problem((), str(error))]


def _listed(kinds: Kinds, value: Any) -> tuple[list[Any], list[Problem]]:
    if not isinstance(value, list):
        return [], [Problem((), not_a_list(value))]
    found = [examine(kinds, block) for block in value]
    wrong = [Problem((at, *problem.at), problem.text) for at, (_, some) in enumerate(found) for problem in some]
    return [block for block, _ in found], wrong


def not_a_list(value: Any) -> str:
    """What to say of something that should be a list of blocks."""
    return f"must be a list of blocks, each with a name, got {shown(value)}"


def _construct(kinds: Kinds, values: Mapping[str, Any]) -> Any:
    kind, given = _opened(kinds, values)
    made = kind(**_arguments(settings(kind), given))
    if isinstance(kinds, Extended) and kinds.finish:
        return kinds.finish(made, **_arguments(kinds.beside, given))
    return made


def _arguments(known: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {}
    for setting in known.values():
        value = given[setting.name]
        if setting.kinds is not None and value is not None:
            arguments[setting.name] = _construct(setting.kinds, value)
        else:
            arguments[setting.name] = thawed(setting.hint, value)
    return arguments
