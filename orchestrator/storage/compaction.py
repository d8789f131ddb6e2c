"""Many small parts into few large ones, while a sweep runs and while others read.

On a local disk the packed table is made beside the old one and the two directories change places in one step: whoever
looks sees all rows once, before and after. A plain reader that has looked at the names and not yet opened the files
would miss them, so a moment is waited for at which there is none; several readers that never rest may leave no such
moment, and then the table stays as it is (or, rarely, one of them has to read again). Where directories cannot be
exchanged (object stores, some file systems) the packed part is put beside the others, the manifest says from when on it
counts and which parts it stands for, and these are deleted; `orchestrator.load` reads by the manifest, so it sees all
rows once there too. What a compaction that was killed left to be deleted, the next driver or compaction deletes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.storage import durable
from orchestrator.storage.driver_lock import compacting
from orchestrator.storage.exchange import CannotExchange, exchange
from orchestrator.storage.hold import Held
from orchestrator.storage.leftovers import finish
from orchestrator.storage.manifest import MANIFEST, Manifest
from orchestrator.storage.parts import EMPTY, PACKED, SUFFIX, encoded, joined
from orchestrator.storage.quiet import Watch, watching
from orchestrator.storage.schemas import TABLES
from orchestrator.storage.store import Store
from orchestrator.storage.table_lock import table_lock

ROWS = 2_000_000  # of a packed part, about; one that has half of it is left as it is
PATIENCE = 30.0  # seconds to look for a moment at which no reader is disturbed; then the table stays as it is
HELD = 1.0  # seconds of these for which writers wait at a time

Stamps = Mapping[str, tuple[int, int]]  # of a part: what changes when it is written again


@dataclass(frozen=True)
class Compaction:
    """What was done to a table: its parts before and after, and the rows that were moved."""

    table: str
    before: int
    after: int
    rows: int


def compact(store: Store, patience: float = PATIENCE, say: Callable[[str], None] = lambda _: None) -> list[Compaction]:
    """Pack every table. Safe beside a running sweep, and whatever dies on the way.

    Rows of `examples` stay where they are until their evaluation is on record: it may be done again. Raises UserError
    where another compaction is at work, and where a table has lost what says which columns it has. On an object store
    one that was killed elsewhere is waited for, of which `say` hears.
    """
    for table in TABLES:
        _refuse_unknown_columns(store, table)
    with compacting(store.files, say) as held:
        return [_compact(store, table, patience, held) for table in TABLES]


def _refuse_unknown_columns(store: Store, table: str) -> None:
    if store.schema_on_record(table) is None:
        raise UserError(
            f"{store.root}/{table}/{EMPTY}{SUFFIX}: is missing or damaged, so that nothing says which columns there "
            "are: run the sweep once first, which writes it, and compact then"
        )


def _compact(store: Store, table: str, patience: float, held: Held) -> Compaction:
    finish(store.files, table, held)
    before = store.names(table)
    counts = {name: store.rows(table, name) for name in _packable(store, table, before)}
    groups = list(_groups(counts))
    stamps = _stamps(store, table, [name for group in groups for name in group])
    packing = Path(f".{table}.packing") if store.files.is_local else Path(table)
    if store.files.is_local:
        shutil.rmtree(Path(store.root) / packing, ignore_errors=True)  # of one that was killed
    elif groups:
        _have_manifest(store, table)
    packed: dict[str, list[str]] = {}
    for group in groups:
        name = f"{PACKED}{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        whole = joined([record for part in group for record in store.records(table, part)])
        held.check()
        store.files.make_directory(str(packing))
        store.files.replace(f"{packing}/{name}{SUFFIX}", encoded(whole))
        packed[name] = group
    if packed:
        _commit(store, table, packed, stamps, patience, held)
    moved = sum(counts[name] for group in groups for name in group)
    return Compaction(table, len(before), len(store.names(table)), moved)


def _have_manifest(store: Store, table: str) -> None:
    """From the first packed part on there is one: a packed part that it does not name is known not to count."""
    if not store.manifest(table).is_written:
        store.files.replace(f"{table}/{MANIFEST}", Manifest().to_bytes())


def _packable(store: Store, table: str, names: Sequence[str]) -> list[str]:
    if table != "examples":
        return list(names)
    judged = store.keys("attacks")
    return [name for name in names if name in judged or name.startswith(PACKED)]


def _groups(counts: Mapping[str, int]) -> Iterator[list[str]]:
    """Which parts become one: in their order, up to about ROWS rows; a part alone is left as it is."""
    group, rows = list[str](), 0
    for name, count in counts.items():
        if name.startswith(PACKED) and count >= ROWS // 2:
            continue
        group.append(name)
        rows += count
        if rows >= ROWS:
            if len(group) > 1:
                yield group
            group, rows = [], 0
    if len(group) > 1:
        yield group


def _commit(
    store: Store, table: str, packed: Mapping[str, list[str]], stamps: Stamps, patience: float, held: Held
) -> None:
    if store.files.is_local:
        try:
            _exchange(store, table, packed, stamps, patience)
            return
        except CannotExchange:
            with table_lock(store.files, table, packing=True):
                if _stamps(store, table, list(stamps)) == stamps:
                    _bring(store, table, packed)
                    _supersede(store, table, packed, held)
            shutil.rmtree(Path(store.root) / f".{table}.packing", ignore_errors=True)
            return
    _supersede(store, table, packed, held)


def _bring(store: Store, table: str, packed: Mapping[str, list[str]]) -> None:
    """Move packed parts to where the manifest will speak of them."""
    _have_manifest(store, table)
    for name in packed:
        os.replace(f"{store.root}/.{table}.packing/{name}{SUFFIX}", f"{store.root}/{table}/{name}{SUFFIX}")
    durable.sync_directory(Path(store.root, table))


def _exchange(store: Store, table: str, packed: Mapping[str, list[str]], stamps: Stamps, patience: float) -> None:
    """Have the packed table and the old one change places, at a moment at which no reader would miss a file."""
    root = Path(store.root)
    live, other, until = root / table, root / f".{table}.packing", time.monotonic() + patience
    covered = {name for group in packed.values() for name in group}
    kept = [name for name in (*store.manifest(table).packed, *packed) if name not in covered]
    with _listing(live) as listing, watching(live) as watch:
        while time.monotonic() < until:
            with table_lock(store.files, table, packing=True):
                if _stamps(store, table, list(stamps)) != stamps:
                    break  # a part was replaced meanwhile: the next compaction takes it
                names = os.listdir(listing)
                _fill(live, other, [name for name in names if name.removesuffix(SUFFIX) not in covered])
                durable.replace(other / MANIFEST, Manifest(_alone(kept)).to_bytes())
                if _is_safe_soon(watch, [name for name in names if name[0] not in "._"]):
                    exchange(live, other)
                    durable.sync_directory(root)
                    break
    shutil.rmtree(other, ignore_errors=True)


def _is_safe_soon(watch: Watch, names: Sequence[str]) -> bool:
    """Writers wait as long as this looks."""
    until = time.monotonic() + HELD
    while not watch.is_safe(names):
        if time.monotonic() > until:
            return False
        time.sleep(0.0002)
    return True


@contextmanager
def _listing(directory: Path) -> Iterator[int]:
    """A descriptor to list a directory by, again and again: opening it each time would look like a reader."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fill(live: Path, other: Path, names: Sequence[str]) -> None:
    """Give the packed table these parts of the old one, as second names of the same files."""
    for name in names:
        if name[0] not in "._":
            (other / name).unlink(missing_ok=True)
            os.link(live / name, other / name)
    durable.sync_directory(other)


def _supersede(store: Store, table: str, packed: Mapping[str, list[str]], held: Held) -> None:
    """Say in the manifest that packed parts count from now on in the place of others, and delete those."""
    covered = {name for group in packed.values() for name in group}
    kept = [name for name in store.manifest(table).packed if name not in covered]
    _say(store, table, {**_alone(kept), **packed}, held)
    finish(store.files, table, held)
    _say(store, table, _alone((*kept, *packed)), held)


def _alone(packed: Iterable[str]) -> dict[str, list[str]]:
    """Packed parts whose origins are gone."""
    return {name: [] for name in packed}


def _say(store: Store, table: str, packed: Mapping[str, Sequence[str]], held: Held) -> None:
    held.check()
    store.files.replace(f"{table}/{MANIFEST}", Manifest(packed).to_bytes())


def _stamps(store: Store, table: str, names: Sequence[str]) -> Stamps:
    if not store.files.is_local:
        return {}
    found = {}
    for name in names:
        try:
            stat = os.stat(f"{store.root}/{table}/{name}{SUFFIX}")
        except FileNotFoundError:
            continue
        found[name] = (stat.st_ino, stat.st_mtime_ns)
    return found
