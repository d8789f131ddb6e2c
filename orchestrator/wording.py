"""How values, places and names are written in messages."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.errors import Place

LONGEST = 80
_PLAIN_KEY = re.compile(r"[\w.<-]{1,60}")
_WORD = re.compile(r"[A-Za-z_~][\w./:+-]*")


def shown(value: Any) -> str:
    """A value as YAML would write it on one line, cut where it is long."""
    text = repr(value) if isinstance(value, str) else _flow(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def dotted(place: Place) -> str:
    """`("matrix", "defense", 1, "lr")` -> `matrix.defense[1].lr`; keys that would not be seen as keys in quotes"""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{_key(key)}" for key in place).removeprefix(".")


def one_of(known: Iterable[Any], seen: Any) -> str:
    """What to say of a name that is not known: the known ones and the nearest."""
    names = list(known)
    if not names:
        return f"nothing is allowed here, got {shown(seen)}"
    return f"must be one of {', '.join(map(_bare, names))}, got {shown(seen)}{nearest(names, seen)}"


def nearest(known: Iterable[Any], seen: Any) -> str:
    """`; did you mean 'x'?` where a known name looks like the one seen, else nothing."""
    if not isinstance(seen, str):
        return ""
    by_lower = {str(name).lower(): str(name) for name in known}
    wanted = seen.lower()
    longer = [name for name in by_lower if len(wanted) > 2 and name.startswith(wanted)]
    found = difflib.get_close_matches(wanted, by_lower, n=1) or longer
    return f"; did you mean {by_lower[found[0]]!r}?" if found else ""


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else shown(key)


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else _flow(value)


def _flow_key(key: Any) -> str:
    return str(key) if str(key).isprintable() else repr(key)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow_key(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value if _WORD.fullmatch(value) else repr(value)
    return json.dumps(value, default=repr)
