"""The store of one sweep: six tables of Parquet parts, each whole; a part holds one record or a group of them."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.storage.files import open_files
from orchestrator.storage.leftovers import finish_unless_at_work
from orchestrator.storage.parts import EMPTY, GROUP, SUFFIX, checked_key, encoded, joined
from orchestrator.storage.reader import StoreReader, checked_table
from orchestrator.storage.schemas import TABLES, VERSION, VERSION_KEY, Row, differences, schema_of, to_table
from orchestrator.storage.table_lock import table_lock

Record = tuple[str, Sequence[Row]]


@dataclass(frozen=True)
class Store(StoreReader):
    """What reads and writes; `param_columns` gives each hole's path its type (writers of `trials` need it).

    A record is some rows of a table under a key, written once. It lies in a part of that name, or with others in a
    group. Any number of processes may write.
    """

    param_columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, root: str | Path, param_columns: Mapping[str, str] | None = None) -> Store:
        """The store in a directory, or at a URI."""
        return cls(open_files(root), param_columns or {})

    def prepare(self) -> None:
        """Make the directories, and in each table a part without rows, so that it can be read from now on.

        Raises UserError where the store has columns that this sweep, or this version, does not know, and where nothing
        says which of its parts count.
        """
        self.files.make_directory("")
        self.files.make_directory("checkpoints")
        for table in TABLES:
            self.files.make_directory(table)
            finish_unless_at_work(self.files, table)
            self.names(table)  # raises where the manifest is lost: what it stands for would be done again
            schema = schema_of(table, self.param_columns)
            known = self.schema_on_record(table)
            if known is not None:
                _check_covers(f"{self.root}/{table}", known, schema)
                if known.equals(schema, check_metadata=True):
                    continue
            self._put(table, EMPTY, encoded(schema.empty_table()))

    def append(self, table: str, key: str, rows: Sequence[Row]) -> bool:
        """Write a record as a part of its own, once: True if this call wrote it.

        An equal part on record (costs such as `seconds` aside) makes this a no-op. A different one stays as it
        is, and the difference goes to `events` as a `conflict`. Raises ValueError for wrong keys or columns.
        """
        name, part = self.part(table, key), self.to_table(table, rows)
        with table_lock(self.files, table):
            if not self.files.exists(name) and self.files.create(name, encoded(part)):
                return True
        self.note_conflict(table, key, self._load(name), part)
        return False

    def append_group(self, table: str, name: str, records: Sequence[Record]) -> None:
        """Write several records as one part, under one sync. The caller knows that none of them is on record yet."""
        parts = [(key, self.to_table(table, rows)) for key, rows in records]
        self._put(table, GROUP + name, encoded(joined(parts)))

    def replace(self, table: str, key: str, rows: Sequence[Row]) -> None:
        """Write a record in the place of the one on record, if any: for what is derived from other tables."""
        holder = self.index(table).get(key, key) if self._has_groups(table) else key
        part = self.to_table(table, rows)
        if holder == key:
            self._put(checked_table(table), checked_key(key), encoded(part))
            return
        records = self._split(table, holder)
        self._put(table, holder, encoded(joined([(name, part if name == key else old) for name, old in records])))

    def note_conflict(self, table: str, key: str, recorded: pa.Table, refused: pa.Table) -> None:
        """Put into `events` that a record was to be written again and differed; costs may differ."""
        if columns := differences(recorded, refused):
            event_key, event = _conflict(table, key, columns, recorded, refused)
            self.append("events", event_key, [event])

    def to_table(self, table: str, rows: Sequence[Row]) -> pa.Table:
        return to_table(table, rows, schema_of(checked_table(table), self.param_columns))

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the sweep itself, such as `spec.yaml`, whole or not at all."""
        self.files.replace(checked_key(name), text.encode())

    def write_json(self, name: str, content: Any) -> None:
        self.write_text(name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _put(self, table: str, name: str, content: bytes) -> None:
        with table_lock(self.files, table):
            self.files.replace(f"{table}/{name}{SUFFIX}", content)


def _conflict(
    table: str, key: str, columns: list[str], recorded: pa.Table, refused: pa.Table
) -> tuple[str, dict[str, Any]]:
    """The key and the row of the event that says so."""
    evidence = {"table": table, "key": key, "columns": columns, **_first_difference(columns, recorded, refused)}
    text = json.dumps(evidence, sort_keys=True, default=str)
    ids = refused["trial_id"].to_pylist() if "trial_id" in refused.column_names else []
    trial_id = ids[0] if ids else None
    digest = hashlib.blake2b(f"{table}/{key}/{text}".encode(), digest_size=8).hexdigest()
    return f"{trial_id}.conflict.{digest}" if trial_id else f"conflict.{digest}", {
        "at": datetime.now(UTC), "trial_id": trial_id, "kind": "conflict", "severity": "note",
        "evidence": text, "host": socket.gethostname(),
    }  # fmt: skip


def _check_covers(directory: str, known: pa.Schema, schema: pa.Schema) -> None:
    """That the columns on record are among ours, with their types, and not of a later version."""
    version = int((known.metadata or {}).get(VERSION_KEY, b"0"))
    if version > VERSION:
        raise UserError(f"{directory}: has schema version {version} of a later robustsweep; this one knows {VERSION}")
    ours = {column.name: column.type for column in schema}
    lost = [f"{column.name} ({column.type})" for column in known if ours.get(column.name) != column.type]
    if lost:
        raise UserError(f"{directory}: has columns of another sweep: {', '.join(lost)}; use another name or store")


def _first_difference(columns: list[str], recorded: pa.Table, refused: pa.Table) -> dict[str, Any]:
    if columns == ["rows"]:
        return {"recorded": recorded.num_rows, "refused": refused.num_rows}
    first, second = recorded.select(columns).to_pylist(), refused.select(columns).to_pylist()
    place = next(place for place, row in enumerate(first) if row != second[place])
    return {"row": place, "recorded": first[place], "refused": second[place]}
