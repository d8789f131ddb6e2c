"""One driver per run directory: the second is refused, and a killed one leaves no lock behind."""

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

NAME = ".driver"  # hidden: readers of the run directory pass it by


class Held(Protocol):
    """That this process is the one driver."""

    def check(self) -> None:
        """Raises UserError where another driver has taken over meanwhile."""


@contextmanager
def driving(files: Files, say: Callable[[str], None] = lambda _: None) -> Iterator[Held]:
    """Hold the run for this process, which lets go when it ends, however it ends. On a disk the root must be there.

    On an object store a killed driver's hold lasts until it has not been renewed for a while: that is waited for,
    which `say` hears of. Raises UserError, naming process and host, where another driver is at work.
    """
    if files.is_local:
        with _locked(files):
            yield _Locked()
        return
    from orchestrator.storage.lease import leased

    with leased(files, NAME, say) as lease:
        yield lease


class _Locked:
    """The system holds the lock: nobody can take it from a live process."""

    def check(self) -> None:
        return


@contextmanager
def _locked(files: Files) -> Iterator[None]:
    path = Path(files.path(NAME))
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(refusal(files, _told(path))) from None
        except OSError as error:
            raise UserError(
                f"{files}: this disk cannot lock files ({error.strerror}), so that two drivers would not notice each "
                "other: use another --store"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(json.dumps(myself()))
        file.flush()
        yield


def myself() -> dict[str, object]:
    """What a driver leaves for a second one to be told."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}


def refusal(files: Files, holder: dict[str, object] | None) -> str:
    """What a second driver is told."""
    who = "" if holder is None else f" (process {holder['pid']} on {holder['host']} since {holder['since']})"
    return f"{files}: another driver is at work here{who}; wait for it, or end it"


def _told(path: Path) -> dict[str, object] | None:
    try:
        said = json.loads(path.read_text())
        return {key: said[key] for key in ("pid", "host", "since")}
    except (ValueError, KeyError, TypeError):
        return None
