"""One holder at a time, of a run or of its compaction: a second one is refused, and a killed one leaves no hold."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from orchestrator.errors import UserError
from orchestrator.storage.files import Files


class Held(Protocol):
    """That this process is the one holder."""

    def check(self) -> None:
        """Raises UserError where another one has taken over meanwhile."""


class HeldByAnother(UserError):
    """Somebody else is at work."""


@contextmanager
def holding(files: Files, name: str, who: str, say: Callable[[str], None] = lambda _: None) -> Iterator[Held]:
    """Hold `name` for this process, which lets go when it ends, however it ends. On a disk the root must be there.

    On an object store the hold of one that was killed lasts until it has not been renewed for a while: that is waited
    for, which `say` hears of. `who` is what holders are called, such as "driver". Raises HeldByAnother, naming process
    and host, where another one is at work, and UserError where nothing can be held here.
    """
    if files.is_local:
        with _locked(files, name, who):
            yield _Locked()
        return
    from orchestrator.storage.lease import leased

    with leased(files, name, say, who=who) as lease:
        yield lease


class _Locked:
    """The system holds the lock: nobody can take it from a live process."""

    def check(self) -> None:
        return


@contextmanager
def _locked(files: Files, name: str, who: str) -> Iterator[None]:
    path = Path(files.path(name))
    try:
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"{files}: cannot be written here: {name}: {error.strerror or error}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldByAnother(refusal(files, who, _told(path))) from None
        except OSError as error:
            raise UserError(
                f"{files}: this disk cannot lock files ({error.strerror}), so that two {who}s would not notice each "
                "other: use another --store"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(json.dumps(myself()))
        file.flush()
        yield


def myself() -> dict[str, object]:
    """What a holder leaves for a second one to be told."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}


def refusal(files: Files, who: str, holder: dict[str, object] | None) -> str:
    """What a second one is told."""
    told = "" if holder is None else f" (process {holder['pid']} on {holder['host']} since {holder['since']})"
    return f"{files}: another {who} is at work here{told}; wait for it, or end it"


def _told(path: Path) -> dict[str, object] | None:
    try:
        said = json.loads(path.read_text())
        return {key: said[key] for key in ("pid", "host", "since")}
    except (ValueError, KeyError, TypeError):
        return None
