"""Looks at every file of a run, says what is wrong, and sets aside what is damaged so that it is done again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import UserError
from orchestrator.provenance import spec_hash
from orchestrator.rundir import PROVENANCE, SPEC, text_of
from orchestrator.spec import load_spec
from orchestrator.storage import checkpoints
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.schemas import TABLES
from orchestrator.storage.store import EMPTY, SUFFIX, Store

ASIDE = ".damaged"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `name` is the file, below the root; `is_damaged` says that it cannot be read."""

    name: str
    text: str
    is_damaged: bool = True


def examine(store: Store) -> list[Finding]:
    """Everything that is wrong with a run; nothing is changed."""
    return [*_texts(store), *_parts(store), *_twice(store), *_checkpoints(store)]


def set_aside(store: Store, findings: list[Finding]) -> list[Finding]:
    """Move damaged files into `.damaged/`, where nobody reads them; -> those that were moved.

    The next run finds again, or computes again, what they held. For when no driver is at work.
    """
    damaged = [finding for finding in findings if finding.is_damaged]
    for finding in damaged:
        try:
            content = store.files.read(finding.name)
        except FileNotFoundError:
            continue  # a second finding of the same file
        store.files.make_directory(f"{ASIDE}/{finding.name}".rpartition("/")[0])
        store.files.replace(f"{ASIDE}/{finding.name}", content)
        store.files.delete(finding.name)
    return damaged


def _texts(store: Store) -> Iterator[Finding]:
    for name in (SPEC, PROVENANCE):
        try:
            text = text_of(store.files, name)
            if text is None:
                yield Finding(name, "is missing: the next run writes it", is_damaged=False)
            elif name == SPEC:
                load_spec(f"{text}\n", name=f"{store.root}/{SPEC}")
            elif json.loads(text)["spec_hash"] != spec_hash(text_of(store.files, SPEC) or ""):
                yield Finding(SPEC, f"is not the one that {PROVENANCE} was written for")
        except (UserError, ValueError, KeyError, TypeError) as error:
            yield Finding(name, f"is damaged: {error}")


def _parts(store: Store) -> Iterator[Finding]:
    """Every file of the tables, read whole."""
    for table in TABLES:
        there = store.files.names(table)
        for name in there:
            if name == MANIFEST:
                try:
                    store.manifest(table)
                except UserError as error:
                    yield Finding(f"{table}/{name}", str(error))
            elif name[0] not in "._" and name.endswith(SUFFIX) and (wrong := _unreadable(store, table, name)):
                yield Finding(f"{table}/{name}", wrong)
        if EMPTY + SUFFIX not in there:
            yield Finding(f"{table}/{EMPTY}{SUFFIX}", "is missing: the next run writes it", is_damaged=False)


def _unreadable(store: Store, table: str, name: str) -> str | None:
    try:
        content = pa.BufferReader(store.files.read(f"{table}/{name}"))
        pq.ParquetFile(content, page_checksum_verification=True).read().validate(full=True)
        if name != EMPTY + SUFFIX:
            store.records(table, name.removesuffix(SUFFIX))
    except (pa.ArrowException, OSError, UserError, KeyError, ValueError) as error:
        return f"cannot be read: {str(error).splitlines()[0] if str(error) else error!r}"
    return None


def _twice(store: Store) -> Iterator[Finding]:
    """Records that lie in two parts: plain readers see their rows twice."""
    for table in TABLES:
        held: Counter[str] = Counter()
        for name in store.names(table):
            try:
                held.update(key for key, _ in store.records(table, name))
            except UserError:
                continue  # said already
        for key in sorted(key for key, parts in held.items() if parts > 1):
            yield Finding(f"{table}/{key}", "is on record in more than one part", is_damaged=False)


def _checkpoints(store: Store) -> Iterator[Finding]:
    for trial_id in store.files.names(checkpoints.DIRECTORY):
        for name in store.files.names(f"{checkpoints.DIRECTORY}/{trial_id}"):
            if name.endswith(checkpoints.SUFFIX) and name[0] != ".":
                try:
                    checkpoints.load(store.files, f"{trial_id}/{name}")
                except checkpoints.CheckpointError as error:
                    yield Finding(f"{checkpoints.DIRECTORY}/{trial_id}/{name}", str(error))
