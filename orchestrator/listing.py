"""What there is: the tables of attacks, defenses, networks and datasets, with every hyperparameter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attacks import ATTACKS, CASCADES
from defenses import DEFENSES, INPUTS, NETWORKS
from orchestrator.datasets import DATASETS
from orchestrator.errors import UserError

TABLES: dict[str, Mapping[str, Any]] = {
    "attacks": ATTACKS, "defenses": DEFENSES, "networks": NETWORKS, "datasets": DATASETS,
    "inputs": INPUTS,
}  # fmt: skip


def listing(table: str | None, name: str | None) -> RenderableType:
    """All tables, one of them, or one entry with its settings. Raises UserError for a name that is not there."""
    if table is None:
        return Group(*(_entries(title, found) for title, found in TABLES.items()))
    found = TABLES[_known(table, TABLES, "table")]
    if name is None:
        return _entries(table, found)
    return _settings(name, found[_known(name, found, table)])


def _entries(title: str, entries: Mapping[str, Any]) -> Table:
    grid = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, kind in entries.items():
        settings = ", ".join(f"{f.name}={_default(f)}" for f in fields(kind))
        grid.add_row(*map(Text, (name, _first_sentence(kind), settings)))
    for name, cascade in CASCADES.items() if title == "attacks" else ():
        grid.add_row(*map(Text, (name, "cascade", ", then ".join(repr(attack) for attack in cascade))))
    return grid


def _settings(name: str, kind: Any) -> RenderableType:
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("setting", "default", "type"):
        grid.add_column(heading)
    for setting in fields(kind):
        grid.add_row(*map(Text, (setting.name, _default(setting), str(setting.type))))
    return Group(Text(name, style="bold"), Text(inspect.getdoc(kind) or ""), Text(""), grid)


def _first_sentence(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _default(setting: Field[Any]) -> str:
    if setting.default is not MISSING:
        return repr(setting.default)
    return repr(setting.default_factory()) if setting.default_factory is not MISSING else "required"


def _known(name: str, table: Mapping[str, Any], what: str) -> str:
    if name in table:
        return name
    near = get_close_matches(name, table, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"{what}: must be one of {', '.join(table)}, got {name!r}{hint}")
