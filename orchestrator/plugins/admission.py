"""Lets the user's modules in: imports what was named, and puts their classes into the tables.

A module that was named stays named as long as the process lives, as Python's own imports do.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.errors import UserError
from orchestrator.identity import is_library, module_source
from orchestrator.plugins.finding import imported
from orchestrator.plugins.kinds import Kind, recognised


@dataclass(frozen=True)
class Plugin:
    """A module as it was imported: `file_hash` is of its own file, `source` of all of the user's that it imports.

    `travels`: whether its source goes along to workers; what is installed is expected to be installed there.
    """

    module: str
    file_hash: str
    source: str
    travels: bool


_ADMITTED: dict[str, Plugin] = {}


def admit(named: Iterable[str]) -> tuple[Plugin, ...]:
    """Import these modules (dotted names, or paths of files) and let specs name their classes, `module:Class`.

    Raises UserError where a module is not there or breaks, or has changed since this process imported it.
    """
    return tuple(_admitted(imported(given)) for given in named)


def admitted() -> tuple[Plugin, ...]:
    """The plugins of this process, in the order in which they came."""
    return tuple(_ADMITTED.values())


def receive(plugin: Plugin, module: ModuleType) -> None:
    """Let in what another process sent along."""
    _ADMITTED[plugin.module] = plugin
    _put_into_tables(module)


def offers(module: ModuleType) -> Iterator[tuple[str, type, Kind]]:
    """The classes of a module that are meant to be of some kind, though they may lack something, by their names."""
    top = module.__name__.partition(".")[0]
    for name, found in vars(module).items():
        is_own = isinstance(found, type) and found.__module__.partition(".")[0] == top
        if is_own and not name.startswith("_") and not getattr(found, "_is_protocol", False):
            kind = recognised(found)
            if kind is not None:
                yield name, found, kind


def canonical(cls: type) -> str:
    """The name under which a plugin's class is on record: where it is defined."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _admitted(module: ModuleType) -> Plugin:
    name = module.__name__
    before, now = _ADMITTED.get(name), module_source(name)
    if before is not None and before.source != now:
        raise UserError(f"plugin {name}: its source has changed since this process imported it; start Python anew")
    if before is None:
        _ADMITTED[name] = Plugin(name, _hash_of_file(module), now, not is_library(name))
        _put_into_tables(module)
    return _ADMITTED[name]


def _hash_of_file(module: ModuleType) -> str:
    path = Path(module.__file__ or "")
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()[:16]


def _put_into_tables(module: ModuleType) -> None:
    from orchestrator.tables import all_tables

    tables = all_tables()
    for name, cls, kind in offers(module):
        if not kind.lacks(cls):
            complete(cls, kind)
            table: dict[str, Any] = getattr(tables, kind.table)
            table[f"{module.__name__}:{name}"] = table[canonical(cls)] = cls


def complete(cls: type, kind: Kind | None) -> None:
    """Give a class the name it has on record, and the attributes of its kind that its author left out."""
    cls.name = canonical(cls)  # type: ignore[attr-defined]
    for attribute, value in ({} if kind is None else kind.given).items():
        if not hasattr(cls, attribute):
            setattr(cls, attribute, value)


def loaded(name: str) -> ModuleType | None:
    """The module of a plugin that was let in."""
    return sys.modules.get(name) if name in _ADMITTED else None
