"""Files of a store that may be full, unwritable or gone for a while: everything is tried again, then said aloud."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.provenance import masked
from orchestrator.storage.files import Files

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

Value = TypeVar("Value")

LONG_ENOUGH = 150.0  # seconds: a store that is gone for a minute or two is none of a sweep's business
IN_A_WORKER = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
SAID_AT = 3  # failed tries in a row, after which it is worth a line
FULL = {errno.ENOSPC, errno.EDQUOT}
PASSING = FULL | {  # what a disk, a mount or a network may say today and not tomorrow
    errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EAGAIN,
    errno.EINTR, errno.ENODEV, errno.ENXIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT,
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.ESHUTDOWN, errno.EREMOTEIO, errno.ETXTBSY, errno.ENOLCK,
}  # fmt: skip


class StoreLost(OSError):
    """The store did not come back: says where, for how long, and what was seen last."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EIO  # whoever reads a file takes this for trouble with the disk, and not with the file


class _Gone(OSError):
    """The whole root is not there."""


@dataclass(frozen=True)
class Patient:
    """`files` whose every operation is tried for `seconds`, with growing pauses, while the store fails in passing.

    What is simply not there (a file in a root that is there) and mistakes of the program are not waited for. A root
    that is gone is: nothing is said to be missing from it. `say` hears of waits. A pickled one, which is a worker's,
    says nothing and waits for longer: mostly it is the driver that gives up.
    """

    files: Files
    seconds: float = LONG_ENOUGH
    say: Callable[[str], None] | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def __reduce__(self) -> tuple[type[Patient], tuple[Files, float]]:
        return Patient, (self.files, max(self.seconds, IN_A_WORKER))

    def __str__(self) -> str:
        return str(self.files)

    @property
    def root(self) -> str:
        return self.files.root

    @property
    def is_local(self) -> bool:
        return self.files.is_local

    def read(self, name: str) -> bytes:
        return self.attempt(f"read {name}", lambda: self.files.read(name))

    def replace(self, name: str, content: bytes) -> None:
        self.attempt(f"write {name}", lambda: self.files.replace(name, content), len(content))

    def create(self, name: str, content: bytes) -> bool:
        """After a failed try, a file of this very content is what that try left: it counts as written."""
        tries = 0

        def create() -> bool:
            nonlocal tries
            tries += 1
            return self.files.create(name, content) or (tries > 1 and self.files.read(name) == content)

        return self.attempt(f"write {name}", create, len(content))

    def exists(self, name: str) -> bool:
        return self._sure(f"look for {name}", lambda: self.files.exists(name))

    def names(self, directory: str) -> list[str]:
        return self._sure(f"list {directory or 'the root'}", lambda: self.files.names(directory))

    def delete(self, name: str) -> None:
        self._sure(f"delete {name}", lambda: self.files.delete(name))

    def make_directory(self, name: str) -> None:
        self.attempt(f"make the directory {name or 'of the root'}", lambda: self.files.make_directory(name))

    def is_there(self) -> bool:
        return self.attempt("look for the root", self.files.is_there)

    def filesystem(self) -> FileSystem:
        return self.attempt("connect", self.files.filesystem)

    def path(self, name: str = "") -> str:
        return self.attempt("connect", lambda: self.files.path(name))

    def attempt(self, what: str, work: Callable[[], Value], needs: int = 0) -> Value:
        """What `work` gives, tried again while the store fails in passing. `needs`: bytes that it writes.

        Raises StoreLost after `seconds`, and at once whatever is no failure of the store.
        """
        began, pause, failed, is_missing = self.clock(), FIRST_PAUSE, 0, False
        while True:
            try:
                found = work()
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self._is_there():
                    if is_missing:
                        raise
                    is_missing = True  # perhaps the root was not there a moment ago: ask once more
                    continue
                if not _is_passing(error):
                    raise
                last = error
            else:
                if failed >= SAID_AT:
                    self._tell(f"the store is back after {self.clock() - began:.0f} s")
                return found
            failed, waited, is_missing = failed + 1, self.clock() - began, False
            if waited >= self.seconds:
                seen = f"{masked(str(last))}{self._room(last, needs)}"
                raise StoreLost(f"{self.root}: could not {what} in {waited:.0f} s ({failed} tries): {seen}") from last
            if failed == SAID_AT:
                seen = f"{masked(str(last))}{self._room(last, needs)}"
                self._tell(f"cannot {what}: {seen}; trying for {self.seconds - waited:.0f} s more")
            self.pause(min(pause, max(0.0, self.seconds - waited)))
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _sure(self, what: str, ask: Callable[[], Value]) -> Value:
        """An answer; "nothing there" is one only while the root is there, so it is asked for again after a look."""

        def asked() -> Value:
            found = ask()
            if found:
                return found
            if not self.files.is_there():
                raise _Gone(errno.ENOENT, "the whole directory is gone" if self.is_local else "the bucket is gone")
            return ask()

        return self.attempt(what, asked)

    def _is_there(self) -> bool:
        try:
            return self.files.is_there()
        except OSError:
            return False

    def _room(self, error: OSError, needs: int) -> str:
        if error.errno not in FULL or not self.is_local:
            return ""
        try:
            found = os.statvfs(Path(self.root))
        except OSError:
            return f"; {needs:,} bytes are needed"
        return f"; {needs:,} bytes are needed, {found.f_bavail * found.f_frsize:,} are free"

    def _tell(self, text: str) -> None:
        if self.say is not None:
            self.say(f"{self.root}: {text}")


def patiently(files: Files, what: str, work: Callable[[], Value]) -> Value:
    """`work`, which goes to the storage of `files` past their own operations, with their patience if they have any."""
    return files.attempt(what, work) if isinstance(files, Patient) else work()


def _is_passing(error: OSError) -> bool:
    """Errors of object stores have no number: a refused key may be renewed, a bucket may come back."""
    if isinstance(error, StoreLost):
        return False
    return isinstance(error, _Gone | FileNotFoundError | TimeoutError) or error.errno is None or error.errno in PASSING
