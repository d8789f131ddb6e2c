"""Looks at every file of a run, says what is wrong, and sets aside what is damaged so that it is done again.

What a process that was killed, or one that is writing now, leaves half done is no damage: it is said, and left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import UserError
from orchestrator.protocols import FILE as PROTOCOLS
from orchestrator.protocols import Protocols
from orchestrator.provenance import spec_hash
from orchestrator.rundir import PROVENANCE, REPLACES, SPEC, text_of
from orchestrator.spec import load_spec
from orchestrator.storage import checkpoints
from orchestrator.storage.lost_manifest import is_lost, remake
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.parts import EMPTY, PACKED, SUFFIX, names_in
from orchestrator.storage.schemas import TABLES
from orchestrator.storage.store import Store

ASIDE = ".damaged"
_PAIR = (checkpoints.SUFFIX, checkpoints.COMMIT)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `name` is the file, below the root; `is_damaged`: it is lost, or cannot be read."""

    name: str
    text: str
    is_damaged: bool = True


def examine(store: Store) -> list[Finding]:
    """Everything that is wrong with a run; nothing is changed."""
    return [*_texts(store), *_parts(store), *_twice(store), *_checkpoints(store)]


def set_aside(store: Store, findings: list[Finding]) -> list[Finding]:
    """Move damaged files into `.damaged/`, where nobody reads them; -> what was repaired.

    The next run finds again, or computes again, what they held. A manifest is made anew at once, from the parts. For
    when no driver is at work.
    """
    damaged = [finding for finding in findings if finding.is_damaged]
    for finding in damaged:
        try:
            content = store.files.read(finding.name)
        except FileNotFoundError:
            continue  # a second finding of the same file, or one that is lost
        store.files.make_directory(f"{ASIDE}/{finding.name}".rpartition("/")[0])
        store.files.replace(f"{ASIDE}/{finding.name}", content)
        store.files.delete(finding.name)
    for table in TABLES:
        if is_lost(store, table):
            remake(store, table)
    return damaged


def _texts(store: Store) -> Iterator[Finding]:
    try:
        Protocols.of(store.files)
    except UserError as error:
        yield Finding(PROTOCOLS, f"is damaged: {error}; evaluations are measured again under names of their own")
    for name in (SPEC, PROVENANCE):
        try:
            text = text_of(store.files, name)
            if text is None:
                yield Finding(name, "is missing: the next run writes it", is_damaged=False)
            elif name == SPEC:
                load_spec(f"{text}\n", name=f"{store.root}/{SPEC}")
            else:
                yield from _mismatch(store, json.loads(text))
        except (UserError, ValueError, KeyError, TypeError) as error:
            yield Finding(name, f"is damaged: {error}")


def _mismatch(store: Store, provenance: dict[str, Any]) -> Iterator[Finding]:
    """The provenance is written first, and says of which spec it is to be and which one it found."""
    meant, found = provenance["spec_hash"], provenance.get(REPLACES)
    try:
        spec = text_of(store.files, SPEC)
    except UserError:
        return  # said already
    if spec is None or spec_hash(spec) == meant:
        return
    if spec_hash(spec) == found:
        yield Finding(PROVENANCE, f"is of a {SPEC} that was not written any more: the next run does", is_damaged=False)
    else:
        yield Finding(SPEC, f"is not the one that {PROVENANCE} was written for")


def _parts(store: Store) -> Iterator[Finding]:
    """Every file of the tables, read whole."""
    for table in TABLES:
        there = store.files.names(table)
        yield from _packing(store, table)
        for name in there:
            if name[0] not in "._" and name.endswith(SUFFIX) and (wrong := _unreadable(store, table, name)):
                yield Finding(f"{table}/{name}", wrong)
        if EMPTY + SUFFIX not in there:
            yield Finding(f"{table}/{EMPTY}{SUFFIX}", "is missing: the next run writes it", is_damaged=False)


def _packing(store: Store, table: str) -> Iterator[Finding]:
    """What says which parts were packed into which, and what a compaction left."""
    name = f"{table}/{MANIFEST}"
    try:
        manifest, lost = store.manifest(table), is_lost(store, table)
    except UserError as error:
        yield Finding(name, str(error))
        return
    if lost:
        yield Finding(name, "is missing, though parts were packed here: nothing says which of them count")
        return
    names = names_in(store.files, table)
    for part in (*sorted(manifest.covered(names)), *manifest.unnamed(names, PACKED)):
        text = "is of a compaction that is under way, or was killed: the next run, or compaction, deletes it"
        yield Finding(f"{table}/{part}{SUFFIX}", text, is_damaged=False)


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
        for name in _counting(store, table):
            try:
                held.update(key for key, _ in store.records(table, name))
            except UserError:
                continue  # said already
        for key in sorted(key for key, parts in held.items() if parts > 1):
            yield Finding(f"{table}/{key}", "is on record in more than one part", is_damaged=False)


def _counting(store: Store, table: str) -> list[str]:
    try:
        return store.names(table)
    except UserError:
        return []  # said already


def _checkpoints(store: Store) -> Iterator[Finding]:
    for trial_id in store.files.names(checkpoints.DIRECTORY):
        directory = f"{checkpoints.DIRECTORY}/{trial_id}"
        names = [name for name in store.files.names(directory) if name[0] != "."]
        for stem in sorted({name.rpartition(".")[0] for name in names if name.endswith(_PAIR)}):
            yield from _checkpoint(store, trial_id, stem)


def _checkpoint(store: Store, trial_id: str, stem: str) -> Iterator[Finding]:
    """A checkpoint is saved tensors first, and deleted tensors last: without the rest they are nobody's."""
    try:
        checkpoints.load(store.files, f"{trial_id}/{stem}{checkpoints.SUFFIX}")
    except checkpoints.CheckpointError as error:
        tensors, commit = (f"{checkpoints.DIRECTORY}/{trial_id}/{stem}{suffix}" for suffix in _PAIR)
        if store.files.exists(commit):
            yield Finding(tensors if store.files.exists(tensors) else commit, str(error))
        elif store.files.exists(tensors):
            text = f"has no {checkpoints.COMMIT}: it is being saved, or its trainer was killed; no checkpoint"
            yield Finding(tensors, text, is_damaged=False)
