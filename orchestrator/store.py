"""The store of one sweep: six tables of small Parquet parts, each whole, named by its key and written once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from orchestrator import durable
from orchestrator.errors import UserError
from orchestrator.schemas import TABLES, VERSION, VERSION_KEY, Row, differences, schema_of, to_table

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".parquet"
EMPTY = "0-schema"  # the zero-row part: it sorts first, so that readers who take the first schema take this one
_KEY = re.compile(r"[A-Za-z0-9=][A-Za-z0-9._=-]{0,199}")  # readers skip what begins with a dot or an underscore


@dataclass(frozen=True)
class Store:
    """`root` is <store>/<sweep name>; `param_columns` gives each hole's path its type (writers of `trials` need it).

    It holds no handle and no state: cheap to make, safe to pickle, and any number of processes may write.
    """

    root: Path
    param_columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def directory(self, table: str) -> Path:
        if table not in TABLES:
            raise ValueError(f"table: must be one of {', '.join(TABLES)}, got {table!r}")
        return self.root / table

    def part(self, table: str, key: str) -> Path:
        """Where the part of this key lies. Raises ValueError for a key that is no plain file name."""
        return self.directory(table) / (checked_key(key) + SUFFIX)

    def prepare(self) -> None:
        """Make the directories, and in each table a part without rows, so that it can be read from now on.

        Raises UserError where the store has columns that this sweep, or this version, does not know.
        """
        durable.make_directory(self.checkpoints)
        for table in TABLES:
            durable.make_directory(self.directory(table))
            path, schema = self.directory(table) / (EMPTY + SUFFIX), schema_of(table, self.param_columns)
            if path.exists():
                known = pq.read_schema(path)
                _check_covers(path.parent, known, schema)
                if known.equals(schema, check_metadata=True):
                    continue
            durable.replace(path, _encoded(schema.empty_table()))

    def append(self, table: str, key: str, rows: Sequence[Row]) -> bool:
        """Write a part, once: True if this call wrote it.

        An equal part on record (costs such as `seconds` aside) makes this a no-op. A different one stays as it
        is, and the difference goes to `events` as a `conflict`. Raises ValueError for wrong keys or columns.
        """
        path, part = self.part(table, key), self._to_table(table, rows)
        if not path.exists() and durable.create(path, _encoded(part)):
            return True
        recorded = pq.ParquetFile(path).read()
        if columns := differences(recorded, part):
            self._record_conflict(table, key, columns, recorded, part)
        return False

    def replace(self, table: str, key: str, rows: Sequence[Row]) -> None:
        """Write a part in the place of the one on record, if any: for what is derived from other tables."""
        durable.replace(self.part(table, key), _encoded(self._to_table(table, rows)))

    def read(self, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The whole table as a pandas frame, in the order of the keys. Raises UserError if there is no store."""
        return self._read(table, columns, "")

    def read_trial(self, table: str, trial_id: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of one trial. Reads only the parts whose key is its id, or begins with its id and a dot."""
        return self._read(table, columns, checked_key(trial_id))

    def keys(self, table: str) -> set[str]:
        """The keys on record."""
        return {path.name.removesuffix(SUFFIX) for path in self._parts(table)}

    def has(self, table: str, key: str) -> bool:
        return self.part(table, key).exists()

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the sweep itself, such as `spec.yaml`, whole or not at all."""
        durable.replace(self.root / checked_key(name), text.encode())

    def write_json(self, name: str, content: Any) -> None:
        self.write_text(name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _parts(self, table: str, trial_id: str = "") -> list[Path]:
        """The parts with rows, sorted by key; those of one trial if given."""
        directory, start = self.directory(table), trial_id and trial_id + "."
        names = (name for name in os.listdir(directory) if name.startswith(start) and name.endswith(SUFFIX))
        return [directory / name for name in sorted(names) if name[0] not in "._" and name != EMPTY + SUFFIX]

    def _read(self, table: str, columns: Sequence[str] | None, trial_id: str) -> pd.DataFrame:
        empty = self.directory(table) / (EMPTY + SUFFIX)
        if not empty.exists():
            raise UserError(f"{self.root}: no run here: {table}/{empty.name} is missing")
        schema = pq.read_schema(empty)
        paths = [str(path) for path in (empty, *self._parts(table, trial_id))]
        found = ds.dataset(paths, schema=schema, format="parquet")
        belongs = ds.field("trial_id") == trial_id if trial_id else None
        part = found.to_table(columns=None if columns is None else list(columns), filter=belongs)
        frame: pd.DataFrame = part.to_pandas()
        return frame

    def _to_table(self, table: str, rows: Sequence[Row]) -> pa.Table:
        return to_table(table, rows, schema_of(table, self.param_columns))

    def _record_conflict(self, table: str, key: str, columns: list[str], recorded: pa.Table, refused: pa.Table) -> None:
        evidence = {"table": table, "key": key, "columns": columns, **_first_difference(columns, recorded, refused)}
        text = json.dumps(evidence, sort_keys=True, default=str)
        ids = refused["trial_id"].to_pylist() if "trial_id" in refused.column_names else []
        event = {
            "at": datetime.now(UTC), "trial_id": ids[0] if ids else None, "kind": "conflict", "severity": "note",
            "evidence": text, "host": socket.gethostname(),
        }  # fmt: skip
        digest = hashlib.blake2b(f"{table}/{key}/{text}".encode(), digest_size=8).hexdigest()
        self.append("events", f"{ids[0]}.conflict.{digest}" if ids and ids[0] else f"conflict.{digest}", [event])


def checked_key(key: str) -> str:
    """The key itself. Raises ValueError unless it is a plain file name that readers of Parquet do not skip."""
    if not _KEY.fullmatch(key) or key == EMPTY:
        raise ValueError(
            f"key: must be 1 to 200 of A-Z a-z 0-9 . _ = -, begin with none of . _ -, and not be {EMPTY!r}, got {key!r}"
        )
    return key


def _encoded(part: pa.Table) -> bytes:
    """The one way in which a part becomes bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(part, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _check_covers(directory: Path, known: pa.Schema, schema: pa.Schema) -> None:
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
