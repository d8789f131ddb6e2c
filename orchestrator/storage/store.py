"""The store of one sweep: six tables of Parquet parts, each whole; a part holds one record or a group of them."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from orchestrator.errors import UserError
from orchestrator.storage.files import Files, open_files
from orchestrator.storage.manifest import MANIFEST, Manifest
from orchestrator.storage.schemas import TABLES, VERSION, VERSION_KEY, Row, differences, schema_of, to_table
from orchestrator.storage.table_lock import table_lock

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".parquet"
EMPTY = "0-schema"  # the zero-row part: it sorts first, so that readers who take the first schema take this one
GROUP, PACKED = "group-", "packed-"  # how the names of parts with several records begin
RECORDS = b"robustsweep.records"  # of such a part: JSON of [key, number of rows], in the order of the rows
READ_AGAIN = 5  # times, when parts were packed into others between the look into a directory and the reading
_KEY = re.compile(r"[A-Za-z0-9=][A-Za-z0-9._=-]{0,199}")  # readers skip what begins with a dot or an underscore

_CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)

Record = tuple[str, Sequence[Row]]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Store:
    """`files` are below <store>/<sweep name>; `param_columns` gives each hole's path its type (writers of `trials`
    need it).

    A record is some rows of a table under a key, written once. It lies in a part of that name, or with others in a
    group. It holds no handle and no state: cheap to make, safe to pickle, and any number of processes may write.
    """

    files: Files
    param_columns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, root: str | Path, param_columns: Mapping[str, str] | None = None) -> Store:
        """The store in a directory, or at a URI."""
        return cls(open_files(root), param_columns or {})

    @property
    def root(self) -> str:
        return self.files.root

    def part(self, table: str, key: str) -> str:
        """The name of the part of this key, below the root. Raises ValueError for a key that is no plain file name."""
        return f"{_checked_table(table)}/{checked_key(key)}{SUFFIX}"

    def prepare(self) -> None:
        """Make the directories, and in each table a part without rows, so that it can be read from now on.

        Raises UserError where the store has columns that this sweep, or this version, does not know.
        """
        self.files.make_directory("")
        self.files.make_directory("checkpoints")
        for table in TABLES:
            self.files.make_directory(table)
            self.manifest(table).finish(self.files, table, SUFFIX)
            schema = schema_of(table, self.param_columns)
            known = self._schema_on_record(table)
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
            self._put(_checked_table(table), checked_key(key), encoded(part))
            return
        records = self._split(table, holder)
        self._put(table, holder, encoded(joined([(name, part if name == key else old) for name, old in records])))

    def note_conflict(self, table: str, key: str, recorded: pa.Table, refused: pa.Table) -> None:
        """Put into `events` that a record was to be written again and differed; costs may differ."""
        if columns := differences(recorded, refused):
            event_key, event = _conflict(table, key, columns, recorded, refused)
            self.append("events", event_key, [event])

    def read(self, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The whole table as a pandas frame, in the order of the parts. Raises UserError if there is no store."""
        return self._read(_checked_table(table), columns, "")

    def read_trial(self, table: str, trial_id: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of one trial: of the parts whose key is its id, or begins with its id and a dot, and of groups."""
        return self._read(_checked_table(table), columns, checked_key(trial_id))

    def keys(self, table: str) -> set[str]:
        """The keys on record."""
        return set(self.index(table))

    def has(self, table: str, key: str) -> bool:
        """Whether a record is there. Looks into groups only where it has no part of its own."""
        return self.files.exists(self.part(table, key)) or (self._has_groups(table) and key in self.index(table))

    def index(self, table: str) -> dict[str, str]:
        """The name of the part that holds each key. Opens every group."""
        return self._again(lambda: self._index(table))

    def record(self, table: str, key: str) -> pa.Table | None:
        """The rows of one record, None where there is none."""
        holder = self.index(table).get(key)
        if holder is None:
            return None
        return self._load(f"{table}/{holder}{SUFFIX}") if holder == key else dict(self._split(table, holder))[key]

    def names(self, table: str) -> list[str]:
        """The names of the parts with rows, sorted; what a manifest says is packed elsewhere is left out."""
        directory = _checked_table(table)
        found = [name.removesuffix(SUFFIX) for name in self.files.names(directory) if name.endswith(SUFFIX)]
        visible = [name for name in found if name[0] not in "._" and name != EMPTY]
        return self.manifest(table).current(visible, PACKED)

    def rows(self, table: str, name: str) -> int:
        """How many rows a part has."""
        whole = f"{table}/{name}{SUFFIX}"
        with _damage(f"{self.root}/{whole}"):
            path, filesystem = self.files.path(whole), self.files.filesystem()
            return self._surely([whole], lambda: int(pq.read_metadata(path, filesystem=filesystem).num_rows))

    def records(self, table: str, name: str) -> list[tuple[str, pa.Table]]:
        """The records that a part holds, by key, all of the schema that the table has now."""
        is_group = name.startswith((GROUP, PACKED))
        parts = self._split(table, name) if is_group else [(name, self._load(f"{table}/{name}{SUFFIX}"))]
        schema = self._schema_on_record(table) or schema_of(table, self.param_columns)
        return [(key, _widened(part, schema)) for key, part in parts]

    def manifest(self, table: str) -> Manifest:
        """What says which parts were packed into which."""
        return Manifest.read(self.files, f"{table}/{MANIFEST}")

    def to_table(self, table: str, rows: Sequence[Row]) -> pa.Table:
        return to_table(table, rows, schema_of(_checked_table(table), self.param_columns))

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the sweep itself, such as `spec.yaml`, whole or not at all."""
        self.files.replace(checked_key(name), text.encode())

    def write_json(self, name: str, content: Any) -> None:
        self.write_text(name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def _put(self, table: str, name: str, content: bytes) -> None:
        with table_lock(self.files, table):
            self.files.replace(f"{table}/{name}{SUFFIX}", content)

    def _schema_on_record(self, table: str) -> pa.Schema | None:
        """The schema that the table has now; None where there is none, or what says so is damaged and made anew."""
        try:
            with _damage(f"{self.root}/{table}/{EMPTY}{SUFFIX}"):
                return pq.read_schema(pa.BufferReader(self.files.read(f"{table}/{EMPTY}{SUFFIX}")))
        except (FileNotFoundError, DamagedPart):
            return None

    def _has_groups(self, table: str) -> bool:
        """Whether to look into parts of several records; those of `examples` come from compactions alone."""
        if table == "examples":
            return bool(self.manifest(table).packed)
        return any(name.startswith((GROUP, PACKED)) for name in self.names(table))

    def _index(self, table: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self.names(table):
            if name.startswith((GROUP, PACKED)):
                found |= dict.fromkeys((key for key, _ in self._keys_in(f"{table}/{name}{SUFFIX}")), name)
            else:
                found[name] = name
        return found

    def _keys_in(self, name: str) -> list[tuple[str, int]]:
        """Which records a group holds, and how many rows each has."""
        with _damage(f"{self.root}/{name}"):
            path, filesystem = self.files.path(name), self.files.filesystem()
            schema = self._surely([name], lambda: pq.read_schema(path, filesystem=filesystem))
            found: list[tuple[str, int]] = json.loads(schema.metadata[RECORDS])
            return found

    def _split(self, table: str, name: str) -> list[tuple[str, pa.Table]]:
        """The records of a group."""
        whole = self._load(f"{table}/{name}{SUFFIX}")
        with _damage(f"{self.root}/{table}/{name}{SUFFIX}"):
            return split(whole)

    def _load(self, name: str) -> pa.Table:
        with _damage(f"{self.root}/{name}"):
            return pq.ParquetFile(pa.BufferReader(self.files.read(name)), page_checksum_verification=True).read()

    def _read(self, table: str, columns: Sequence[str] | None, trial_id: str) -> pd.DataFrame:
        if not self.files.exists(empty := f"{table}/{EMPTY}{SUFFIX}"):
            raise UserError(f"{self.root}: no run here: {empty} is missing")
        part = self._again(lambda: self._scan(table, columns, trial_id))
        frame: pd.DataFrame = part.to_pandas()
        return frame

    def _scan(self, table: str, columns: Sequence[str] | None, trial_id: str) -> pa.Table:
        start = (trial_id + ".", GROUP, PACKED)
        names = [name for name in self.names(table) if not trial_id or name == trial_id or name.startswith(start)]
        paths = [self.files.path(f"{table}/{name}{SUFFIX}") for name in (EMPTY, *names)]
        filesystem = self.files.filesystem()
        with _damage(f"{self.root}/{table}"):
            schema = pq.read_schema(pa.BufferReader(self.files.read(f"{table}/{EMPTY}{SUFFIX}")))
        found = ds.dataset(paths, schema=schema, format=_CHECKED, filesystem=filesystem)
        belongs = ds.field("trial_id") == trial_id if trial_id else None
        wanted = None if columns is None else list(columns)
        with _damage(f"{self.root}/{table}"):
            parts = [f"{table}/{name}{SUFFIX}" for name in names]
            return self._surely(parts, lambda: found.to_table(columns=wanted, filter=belongs))

    def _surely(self, parts: Sequence[str], look: Callable[[], Found]) -> Found:
        """What `look` finds in parts that it reads past our patience: where that fails, they are read once with it.

        That waits for a store that is away, and says which part it is that is damaged or gone.
        """
        try:
            return look()
        except (pa.ArrowException, OSError):
            for part in parts:
                self._load(part)
            return look()

    def _again(self, look: Callable[[], Found]) -> Found:
        """What `look` finds; a part that was packed meanwhile makes it look once more."""
        for _ in range(READ_AGAIN):
            try:
                return look()
            except FileNotFoundError:
                continue
        return look()


class DamagedPart(UserError):
    """A part of the store that is not whole Parquet."""


@contextmanager
def _damage(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk or the network; what Arrow finds wrong with a file has no number
        raise DamagedPart(
            f"{where}: is damaged ({str(error).splitlines()[0] if str(error) else error!r}). `robustsweep doctor RUN "
            "--repair` sets damaged parts aside; what they held is then found again or computed again"
        ) from error


def checked_key(key: str) -> str:
    """The key itself. Raises ValueError unless it is a plain file name that readers of Parquet do not skip."""
    if not _KEY.fullmatch(key) or key == EMPTY or key.startswith((GROUP, PACKED)):
        raise ValueError(
            f"key: must be 1 to 200 of A-Z a-z 0-9 . _ = -, begin with none of . _ - {GROUP} {PACKED}, and not be "
            f"{EMPTY!r}, got {key!r}"
        )
    return key


def encoded(part: pa.Table) -> bytes:
    """The one way in which a part becomes bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(part, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def joined(records: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """Records as one table, which says in its metadata which rows are whose."""
    whole = pa.concat_tables([part for _, part in records])
    lengths = json.dumps([[key, part.num_rows] for key, part in records])
    return whole.replace_schema_metadata({**(whole.schema.metadata or {}), RECORDS: lengths})


def split(whole: pa.Table) -> list[tuple[str, pa.Table]]:
    """The records of a group, as they were before they were joined."""
    found, start = [], 0
    metadata = {key: value for key, value in whole.schema.metadata.items() if key != RECORDS}
    for key, rows in json.loads(whole.schema.metadata[RECORDS]):
        found.append((key, whole.slice(start, rows).replace_schema_metadata(metadata)))
        start += rows
    return found


def _widened(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows under a later schema: a column that came since is null."""
    columns = [
        part[column.name] if column.name in part.column_names else pa.nulls(part.num_rows, column.type)
        for column in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _checked_table(table: str) -> str:
    if table not in TABLES:
        raise ValueError(f"table: must be one of {', '.join(TABLES)}, got {table!r}")
    return table


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
