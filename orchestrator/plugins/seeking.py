"""What a name that is in no table stands for: a class of a plugin, or a sentence on what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.plugins.admission import admit, canonical, complete, loaded
from orchestrator.plugins.installed import is_installed, short_names
from orchestrator.plugins.kinds import KINDS, Kind, is_frozen, recognised
from orchestrator.wording import nearest, shown


def sought(kinds: Mapping[str, type], name: str) -> type | None:
    """The class for a name that the table lacks: `module:Class`, or the short name of an installed plugin.

    None where the name has nothing to do with plugins. Raises ValueError saying what is missing. Imports only what
    was installed as a plugin; what the user named was imported before.
    """
    point = short_names().get(name)
    if point is not None and ":" not in name:
        name = f"{point.module}:{point.attr}"
    module, colon, attribute = name.partition(":")
    if not colon:
        return None
    if loaded(module) is None and is_installed(module):
        admit([module])
    return kinds[name] if name in kinds else _taken(kinds, module, attribute)


def kind_of(kinds: Mapping[str, type]) -> Kind | None:
    """Of which kind the classes of a table are; None for a table of which nothing is known."""
    from orchestrator.tables import all_tables

    tables = all_tables()
    return next((kind for kind in KINDS if getattr(tables, kind.table) is kinds), None)


def _taken(kinds: Mapping[str, type], module: str, attribute: str) -> type:
    """A class that was not put into the table when its module came: why, or the class."""
    found = loaded(module)
    if found is None:
        raise ValueError(
            f"{shown(f'{module}:{attribute}')} is of a module that was not named: add --plugin {module} (in Python "
            f"plugins=[{module!r}]) if its code may run"
        )
    cls = getattr(found, attribute, None)
    if not isinstance(cls, type):
        names = [name for name, value in vars(found).items() if isinstance(value, type) and _is_own(value, module)]
        there = f"it has {', '.join(names)}" if names else "it has none"
        raise ValueError(f"{module} has no class {shown(attribute)}; {there}{nearest(names, attribute)}")
    kind = kind_of(kinds)
    lacks = _lacks(cls, kind)
    if lacks:
        raise ValueError(f"{module}:{attribute} is no {kind.word if kind else 'such class'}: {'; '.join(lacks)}")
    complete(cls, kind)
    if isinstance(kinds, dict):
        kinds[canonical(cls)] = cls
    return cls


def _lacks(cls: type, kind: Kind | None) -> list[str]:
    if kind is None:
        return [] if is_frozen(cls) else ["it must be a frozen dataclass: write @dataclass(frozen=True) above it"]
    other = recognised(cls)
    if other not in (kind, None) and kind.lacks(cls):
        return [f"it is {'an' if other and other.word[0] == 'a' else 'a'} {other.word if other else ''}"]
    return kind.lacks(cls)


def _is_own(value: Any, module: str) -> bool:
    return bool(value.__module__.partition(".")[0] == module.partition(".")[0])
