"""Makes the manifest of a table anew, when it was lost or damaged, from what the parts hold."""

from __future__ import annotations

from orchestrator.storage.driver_lock import compacting
from orchestrator.storage.manifest import MANIFEST, Manifest
from orchestrator.storage.parts import GROUP, PACKED, SUFFIX, encoded, joined, names_in
from orchestrator.storage.store import Store


def is_lost(store: Store, table: str) -> bool:
    """Whether parts were packed in a table and nothing says which: packed parts never come before the manifest."""
    return (
        any(name.startswith(PACKED) for name in names_in(store.files, table)) and not store.manifest(table).is_written
    )


def remake(store: Store, table: str) -> None:
    """Have every record once again, and a manifest that says so. For when no driver is at work.

    Of a record that lies in a packed part and in another, the other is kept: either it was packed and not yet
    deleted, or it was written again when the packed one did not count. Of two packed parts the later one has it.
    Killed on the way, it may be begun again.
    """
    with compacting(store.files):
        names = names_in(store.files, table)
        packed = sorted((name for name in names if name.startswith(PACKED)), reverse=True)  # they are named by time
        elsewhere: set[str] = set()
        for name in names:
            if not name.startswith(PACKED):
                elsewhere |= set(store.keys_in(table, name)) if name.startswith(GROUP) else {name}
        kept = [name for name in packed if _keep_what_is_missing(store, table, name, elsewhere)]
        store.files.replace(f"{table}/{MANIFEST}", Manifest({name: [] for name in kept}).to_bytes())


def _keep_what_is_missing(store: Store, table: str, name: str, elsewhere: set[str]) -> bool:
    """Take out of a packed part what is elsewhere, and note what it holds; whether anything is left of it."""
    part, records = f"{table}/{name}{SUFFIX}", store.records(table, name)
    missing = [(key, rows) for key, rows in records if key not in elsewhere]
    elsewhere |= {key for key, _ in missing}
    if not missing:
        store.files.delete(part)
    elif len(missing) < len(records):
        store.files.replace(part, encoded(joined(missing)))
    return bool(missing)
