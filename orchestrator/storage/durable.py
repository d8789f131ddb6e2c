"""Files that are whole or absent, whatever dies while they are written: every byte of the store passes here.

A file is written beside its place under a name that begins with a dot (readers of Parquet skip those), synced, put
in its place in one step, and the directory is synced. On an object store one PUT does the same.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def replace(path: Path, content: bytes) -> None:
    """Put `content` at `path`, in the place of what is there."""
    temporary = _written_beside(path, content)
    os.replace(temporary, path)
    sync_directory(path.parent)


def create(path: Path, content: bytes) -> bool:
    """Put `content` at `path` unless something is there; of several writers one gets True, and its file stays."""
    temporary = _written_beside(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            return False
        os.replace(temporary, path)  # without hard links the last of two simultaneous writers wins
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def make_directory(path: Path) -> None:
    """Make a directory and those above it, synced."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_directory(made.parent)


def sync_directory(path: Path) -> None:
    """Have the names in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written_beside(path: Path, content: bytes) -> Path:
    """`content`, synced, in a hidden file of a name nobody else uses (hosts that share the disk may share a pid)."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
