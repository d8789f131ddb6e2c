"""Reads the tables of a store: by the manifests, so that each row is seen once, and patient while a store is away."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from orchestrator.errors import UserError
from orchestrator.storage.files import Files
from orchestrator.storage.manifest import MANIFEST, Manifest
from orchestrator.storage.parts import (
    EMPTY,
    GROUP,
    PACKED,
    RECORDS,
    SUFFIX,
    DamagedPart,
    checked_key,
    damage,
    names_in,
    split,
    widened,
)  # fmt: skip
from orchestrator.storage.schemas import TABLES

if TYPE_CHECKING:
    import pandas as pd

READ_AGAIN = 5  # times, when parts were packed into others between the look into a directory and the reading
AT_ONCE = 16  # groups whose footers are asked for at a time: an object store takes tens of milliseconds for each
FEW = 4  # of which one after the other is as fast

_CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)

Found = TypeVar("Found")


@dataclass(frozen=True)
class StoreReader:
    """`files` are below <store>/<sweep name>. It holds no handle and no state: cheap to make, safe to pickle."""

    files: Files

    @property
    def root(self) -> str:
        return self.files.root

    def part(self, table: str, key: str) -> str:
        """The name of the part of this key, below the root. Raises ValueError for a key that is no plain file name."""
        return f"{checked_table(table)}/{checked_key(key)}{SUFFIX}"

    def read(self, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The whole table as a pandas frame, in the order of the parts. Raises UserError if there is no store."""
        return self._read(checked_table(table), columns, "")

    def read_trial(self, table: str, trial_id: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of one trial: of the parts whose key is its id, or begins with its id and a dot, and of groups."""
        return self._read(checked_table(table), columns, checked_key(trial_id))

    def keys(self, table: str) -> set[str]:
        """The keys on record."""
        return set(self.index(table))

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
        """The names of the parts with rows, sorted; what a manifest says is packed elsewhere is left out.

        Raises UserError where parts were packed and the manifest that says so is lost.
        """
        manifest = self.manifest(checked_table(table))
        while True:
            names, before = names_in(self.files, table), manifest
            manifest = self.manifest(table)
            if manifest == before:  # else a compaction was committed meanwhile: the names are of before, or of after
                break
        if not manifest.is_written and manifest.unnamed(names, PACKED):
            raise UserError(
                f"{self.root}/{table}/{MANIFEST}: is missing, though parts were packed here: nothing says which "
                "count. `robustsweep doctor RUN --repair` makes it anew"
            )
        return manifest.current(names, PACKED)

    def rows(self, table: str, name: str) -> int:
        """How many rows a part has."""
        whole = f"{table}/{name}{SUFFIX}"
        with damage(f"{self.root}/{whole}"):
            path, filesystem = self.files.path(whole), self.files.filesystem()
            return self._surely([whole], lambda: int(pq.read_metadata(path, filesystem=filesystem).num_rows))

    def records(self, table: str, name: str) -> list[tuple[str, pa.Table]]:
        """The records that a part holds, by key, under the schema that the table has now, if there is one."""
        is_group = name.startswith((GROUP, PACKED))
        parts = self._split(table, name) if is_group else [(name, self._load(f"{table}/{name}{SUFFIX}"))]
        schema = self.schema_on_record(table)
        return parts if schema is None else [(key, widened(part, schema)) for key, part in parts]

    def keys_in(self, table: str, name: str) -> list[str]:
        """Which records a group holds: its footer says so."""
        whole = f"{table}/{name}{SUFFIX}"
        with damage(f"{self.root}/{whole}"):
            path, filesystem = self.files.path(whole), self.files.filesystem()
            schema = self._surely([whole], lambda: pq.read_schema(path, filesystem=filesystem))
            return [str(key) for key, _ in json.loads(schema.metadata[RECORDS])]

    def manifest(self, table: str) -> Manifest:
        """What says which parts were packed into which."""
        return Manifest.read(self.files, f"{table}/{MANIFEST}")

    def schema_on_record(self, table: str) -> pa.Schema | None:
        """The schema that the table has now; None where there is none, or what says so is damaged and made anew."""
        try:
            with damage(f"{self.root}/{table}/{EMPTY}{SUFFIX}"):
                return pq.read_schema(pa.BufferReader(self.files.read(f"{table}/{EMPTY}{SUFFIX}")))
        except (FileNotFoundError, DamagedPart):
            return None

    def _has_groups(self, table: str) -> bool:
        """Whether to look into parts of several records; those of `examples` come from compactions alone."""
        if table == "examples":
            return bool(self.manifest(table).packed)
        return any(name.startswith((GROUP, PACKED)) for name in self.names(table))

    def _index(self, table: str) -> dict[str, str]:
        names = self.names(table)
        groups = [name for name in names if name.startswith((GROUP, PACKED))]
        found = {name: name for name in names if not name.startswith((GROUP, PACKED))}
        for name, keys in zip(groups, self._keys_in_each(table, groups), strict=True):
            found |= dict.fromkeys(keys, name)
        return found

    def _keys_in_each(self, table: str, groups: Sequence[str]) -> list[list[str]]:
        """Which records each group holds."""
        if len(groups) <= FEW:
            return [self.keys_in(table, name) for name in groups]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="footers") as pool:
            return list(pool.map(lambda name: self.keys_in(table, name), groups))

    def _split(self, table: str, name: str) -> list[tuple[str, pa.Table]]:
        """The records of a group."""
        whole = self._load(f"{table}/{name}{SUFFIX}")
        with damage(f"{self.root}/{table}/{name}{SUFFIX}"):
            return split(whole)

    def _load(self, name: str) -> pa.Table:
        with damage(f"{self.root}/{name}"):
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
        with damage(f"{self.root}/{table}"):
            schema = pq.read_schema(pa.BufferReader(self.files.read(f"{table}/{EMPTY}{SUFFIX}")))
        found = ds.dataset(paths, schema=schema, format=_CHECKED, filesystem=filesystem)
        belongs = ds.field("trial_id") == trial_id if trial_id else None
        wanted = None if columns is None else list(columns)
        with damage(f"{self.root}/{table}"):
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


def checked_table(table: str) -> str:
    """The name itself. Raises ValueError for a table that there is not."""
    if table not in TABLES:
        raise ValueError(f"table: must be one of {', '.join(TABLES)}, got {table!r}")
    return table
