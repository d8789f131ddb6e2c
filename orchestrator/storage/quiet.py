"""Finds a moment at which no reader of a directory is between its look at the names and the opening of the files."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SETTLED = 0.1  # seconds, after which those who had looked before the watch began have opened what they wanted
QUIET = 0.5  # seconds without an open, after which those who looked at the names have opened what they wanted
_IN_OPEN, _IN_CLOSE_NOWRITE, _IN_ISDIR, _IN_Q_OVERFLOW = 0x20, 0x10, 0x40000000, 0x4000
_MASK = _IN_OPEN | _IN_CLOSE_NOWRITE  # without the second the kernel would make one event of two openings in a row
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


class Watch:
    """Counts the looks into a directory and the openings of its files (inotify; Linux, readers of this machine).

    A file that is open stays readable whatever becomes of its name, so a reader is in danger only from its look until
    it has opened the last of the files. Where there is no inotify nobody is heard.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._looks, self._opened = 0, Counter[str]()
        self._began = self._heard = time.monotonic()

    def is_safe(self, names: Sequence[str]) -> bool:
        """Whether every look so far was followed by an opening of each of these files, or by a long quiet."""
        if self._descriptor is None:
            return True
        self._take_in()
        if time.monotonic() - self._heard > QUIET:
            self._looks, self._opened = 0, Counter()
            return True
        return 0 < self._looks <= min((self._opened[name] for name in names), default=0)

    def _note(self, mask: int, name: str) -> None:
        if mask & _IN_Q_OVERFLOW:
            self._looks += 1  # something was missed: only a long quiet helps
        elif not mask & _IN_OPEN or time.monotonic() - self._began < SETTLED:
            return
        elif mask & _IN_ISDIR:
            self._looks += not name
        elif self._looks:
            self._opened[name] += 1

    def _take_in(self) -> None:
        assert self._descriptor is not None
        while True:
            try:
                events = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return
            self._heard = time.monotonic()
            place = 0
            while place < len(events):
                _, mask, _, length = _EVENT.unpack_from(events, place)
                name = events[place + _EVENT.size : place + _EVENT.size + length].rstrip(b"\0").decode()
                place += _EVENT.size + length
                self._note(mask, name)


@contextmanager
def watching(directory: Path) -> Iterator[Watch]:
    """A watch over a directory."""
    descriptor = _watched(directory)
    try:
        yield Watch(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _watched(directory: Path) -> int | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return None
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), _MASK) < 0:
        os.close(descriptor)
        return None
    return descriptor
