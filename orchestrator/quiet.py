"""Waits for a moment in which nobody reads a directory."""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUIET = 0.1  # seconds without an open or a read, after which whoever was reading has finished
_IN_ACCESS, _IN_OPEN = 0x1, 0x20
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class Watch:
    """Hears of every open and read below a directory (inotify). Where there is none it hears nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def has_heard(self) -> bool:
        """Whether anything happened since this was asked last."""
        if self._descriptor is None:
            return False
        heard = False
        while True:
            try:
                heard |= bool(os.read(self._descriptor, 1 << 16))
            except BlockingIOError:
                return heard

    def wait(self, patience: float, quiet: float = QUIET) -> bool:
        """Whether there came a moment of quiet within `patience` seconds."""
        until = time.monotonic() + patience
        while self._descriptor is not None:
            ready, _, _ = select.select([self._descriptor], [], [], quiet)
            if not ready:
                return True
            self.has_heard()
            if time.monotonic() > until:
                return False
        return True


@contextmanager
def watching(directory: Path) -> Iterator[Watch]:
    """A watch over a directory on this machine; readers on other machines are not heard."""
    descriptor = _watched(directory)
    try:
        yield Watch(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _watched(directory: Path) -> int | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    except (AttributeError, OSError):
        return None
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), _IN_ACCESS | _IN_OPEN) < 0:
        os.close(descriptor)
        return None
    return descriptor
