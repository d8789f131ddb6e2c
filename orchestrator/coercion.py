"""Values of a spec made to fit the types of dataclass fields: JSON values in, JSON values out."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from orchestrator.wording import one_of, shown

_FRACTION = re.compile(r"\s*([-+]?\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)\s*")
_ALMOST = re.compile(r"\s*[-+]?[\d.]")
MOST_WHOLE = 2**53  # beyond it not every whole number has a float
_LISTS = (list, tuple, Sequence)
_MAPS = (dict, Mapping)


def number(value: Any) -> int | float:
    """A finite number, or a fraction written as text ("8/255"); raises ValueError for anything else."""
    if isinstance(value, str) and (parts := _FRACTION.fullmatch(value)) and float(parts[2]):
        value = float(parts[1]) / float(parts[2])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fraction = "; a fraction is written 8/255" if isinstance(value, str) and _ALMOST.match(value) else ""
        raise ValueError(f"must be a number, got {shown(value)}{fraction}")
    if abs(value) > sys.float_info.max or value != value:
        raise ValueError(f"must be a finite number, got {shown(value)}")
    return value


def coerce(hint: Any, value: Any) -> Any:
    """`value` as a JSON value of type `hint` (1 becomes 1.0 for a float); raises ValueError saying what is allowed."""
    origin = get_origin(hint) or hint
    if hint is Any:
        return plain(value)
    if origin in (Union, types.UnionType):
        return _member(hint, value)
    if origin is Literal:
        return _literal(hint, value)
    if origin in _LISTS or origin in _MAPS:
        return _container(hint, value)
    try:
        return _SCALARS[hint](value)
    except ValueError as error:
        raise ValueError(str(error) or f"must be {allowed(hint)}, got {shown(value)}") from None


def allowed(hint: Any) -> str:
    """What a field of this type takes, in words."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(allowed, args))
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin in _LISTS:
        return "a list"
    if origin in _MAPS:
        return "a mapping"
    return _WORDS.get(hint, "a value")


def is_settable(hint: Any) -> bool:
    """Whether a spec can give values of this type at all (a tensor or a module, for one, it cannot)."""
    if get_origin(hint) is Literal or hint is Any or hint in _SCALARS:
        return True
    args = [arg for arg in get_args(hint) if arg is not Ellipsis]
    known = get_origin(hint) in (Union, types.UnionType, *_LISTS, *_MAPS) or hint in (*_LISTS, *_MAPS)
    return known and all(map(is_settable, args))


def item_hint(hint: Any, key: str | int) -> Any:
    """The type of an item of a list (integer key) or a mapping (text key); None where `hint` takes no such thing."""
    if hint is Any:
        return Any
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return next((found for arg in args if (found := item_hint(arg, key)) is not None), None)
    if origin in _MAPS and isinstance(key, str):
        return args[1] if args else Any
    if origin not in _LISTS or isinstance(key, str):
        return None
    if not args:
        return Any
    is_fixed = origin is tuple and Ellipsis not in args
    return args[min(key, len(args) - 1)] if is_fixed else args[0]


def plain(value: Any) -> Any:
    """A default of a dataclass as a JSON value."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def thawed(hint: Any, value: Any) -> Any:
    """The JSON value as the dataclass wants it: lists become tuples where the field says so."""
    if isinstance(value, list):
        items = [thawed(item_hint(hint, position), item) for position, item in enumerate(value)]
        return tuple(items) if _wants_tuple(hint) else items
    if isinstance(value, dict):
        return {key: thawed(item_hint(hint, key), item) for key, item in value.items()}
    return value


def _wants_tuple(hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(map(_wants_tuple, get_args(hint)))
    return (get_origin(hint) or hint) is tuple


def _member(hint: Any, value: Any) -> Any:
    """The first member of a union that takes the value, the one of its own type before the others."""
    members = sorted(get_args(hint), key=lambda member: member is not type(value))
    for member in members:
        try:
            return coerce(member, value)
        except ValueError:
            continue
    raise ValueError(f"must be {allowed(hint)}, got {shown(value)}")


def _literal(hint: Any, value: Any) -> Any:
    for arg in get_args(hint):
        if arg == value and type(arg) is type(value):
            return arg
    raise ValueError(one_of(get_args(hint), value))


def _container(hint: Any, value: Any) -> Any:
    is_map = (get_origin(hint) or hint) in _MAPS
    if not isinstance(value, Mapping if is_map else (list, tuple)):
        raise ValueError(f"must be {allowed(hint)}, got {shown(value)}")
    args = get_args(hint)
    if args and (get_origin(hint) is tuple) and Ellipsis not in args and len(args) != len(value):
        raise ValueError(f"must be a list of {len(args)}, got {shown(value)}")
    if isinstance(value, Mapping):
        return {key: _item(hint, key, item) for key, item in value.items()}
    return [_item(hint, position, item) for position, item in enumerate(value)]


def _item(hint: Any, key: str | int, item: Any) -> Any:
    try:
        return coerce(item_hint(hint, key), item)
    except ValueError as error:
        raise ValueError(f"item {key}: {error}") from None


def _float(value: Any) -> float:
    return float(number(value)) + 0.0  # + 0.0 turns -0.0 into 0.0: they are one setting


def _int(value: Any) -> int:
    try:
        found = number(value)
    except ValueError:
        raise ValueError from None
    if found != int(found):
        raise ValueError
    if abs(found) > MOST_WHOLE:
        raise ValueError(f"must be a whole number of at most {MOST_WHOLE:,}, got {shown(value)}")
    return int(found)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError
        return value

    return check


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    float: _float,
    int: _int,
    bool: _exactly(bool),
    str: _exactly(str),
    type(None): _exactly(type(None)),
}
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
