"""Between those who write parts and the one who packs them: parts may be added by many, or packed by one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.storage.files import Files
from orchestrator.storage.patience import patiently


@contextmanager
def table_lock(files: Files, table: str, packing: bool = False) -> Iterator[None]:
    """Hold a table for as long as a part takes to write, or alone for as long as its directory takes to be exchanged.

    On an object store nothing is held: there a part is one PUT, and no directory is exchanged.
    """
    if not files.is_local:
        yield
        return
    path = files.path(f".{table}.lock")
    with patiently(files, f"lock {table}", lambda: open(path, "a")) as file:
        fcntl.flock(file, fcntl.LOCK_EX if packing else fcntl.LOCK_SH)
        yield
