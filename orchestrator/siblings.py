"""The other runs of a store, and which trials they have finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.storage.files import open_files
from orchestrator.storage.store import Store
from orchestrator.storage.store_place import apart, below_any
from orchestrator.told import Row
from orchestrator.trials_view import rows_of

Found = TypeVar("Found")

UNREADABLE = (UserError, OSError, pa.ArrowException, ValueError, TypeError, KeyError)
"""What reading another run may raise: it may be damaged, of another version, or be deleted meanwhile."""

USABLE = ("completed", "pruned")  # the better first


class Sibling:
    """Another run, as it was when it was looked at; it is only read, and each table once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        frame = store.read("trials", ["trial_id", "status", "code_version"])
        self.finished = {str(row["trial_id"]): (str(row["status"]), row["code_version"]) for row in rows_of(frame)}
        self._tables: dict[str, tuple[pd.DataFrame, dict[Any, Any]]] = {}

    def rows(self, table: str, trial_id: str) -> list[Row]:
        """The rows of one trial in `events`, `epochs` or `attacks`."""
        if table not in self._tables:
            frame = self.store.read(table)
            self._tables[table] = frame, dict(frame.groupby("trial_id").indices)
        frame, places = self._tables[table]
        return rows_of(frame.iloc[places[trial_id]]) if trial_id in places else []


class Siblings:
    """What the other runs of the store of the run at `root` have finished; they are looked for when first asked for.

    Only trials of the same code count. A run that cannot be read is one that is not there.
    """

    def __init__(self, root: str, code_version: str) -> None:
        self._root, self._code_version = root, code_version

    def with_trial(self, trial_id: str) -> list[Sibling]:
        """The runs that have finished a trial, those that completed it first."""
        return [run for _, run in self._by_trial.get(trial_id, ())]

    @cached_property
    def _by_trial(self) -> dict[str, list[tuple[str, Sibling]]]:
        found: dict[str, list[tuple[str, Sibling]]] = {}
        for run in self._runs():
            for trial_id, (status, code_version) in run.finished.items():
                if status in USABLE and code_version == self._code_version:
                    found.setdefault(trial_id, []).append((status, run))
        for runs in found.values():
            runs.sort(key=lambda pair: USABLE.index(pair[0]))
        return found

    def _runs(self) -> Iterator[Sibling]:
        place, own = apart(self._root)
        names = readable(lambda: open_files(place).names("")) or []
        for name in names:
            if name != own and not name.startswith("."):
                run = readable(lambda name=name: _opened(below_any(place, name)))  # type: ignore[misc]
                if run is not None:
                    yield run


def _opened(place: str) -> Sibling | None:
    files = open_files(place)
    return Sibling(Store(files)) if files.exists("spec.yaml") else None


def readable(look: Callable[[], Found]) -> Found | None:
    """What is found in another run; None where it cannot be read."""
    try:
        return look()
    except UNREADABLE:
        return None
