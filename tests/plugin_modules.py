"""A process as it was before plugins came: for tests that let some in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orchestrator.plugins.admission as admission
from orchestrator.plugins.kinds import KINDS
from orchestrator.tables import all_tables


@contextmanager
def plugins_forgotten() -> Iterator[None]:
    """Whatever is let in within the block is out again after it: tables, modules, Python's path."""
    tables = [getattr(all_tables(), kind.table) for kind in KINDS]
    kept = [dict(table) for table in tables]
    modules, path, finders, known = set(sys.modules), list(sys.path), list(sys.meta_path), dict(admission._ADMITTED)
    try:
        yield
    finally:
        for table, before in zip(tables, kept, strict=True):
            table.clear()
            table.update(before)
        mine = {name.partition(".")[0] for name in admission._ADMITTED.keys() - known.keys()}
        for name in sys.modules.keys() - modules:
            if name.partition(".")[0] in mine or _lies_in(name, set(sys.path) - set(path)):
                del sys.modules[name]
        sys.path[:], sys.meta_path[:] = path, finders
        admission._ADMITTED.clear()
        admission._ADMITTED.update(known)


def _lies_in(name: str, folders: set[str]) -> bool:
    file = getattr(sys.modules[name], "__file__", None) or ""
    return any(Path(file).is_relative_to(folder) for folder in folders if folder)
