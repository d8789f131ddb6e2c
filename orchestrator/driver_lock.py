"""One driver per run directory: the second is refused, and a killed one leaves no lock behind."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.files import Files

NAME = ".driver"  # hidden: readers of the run directory pass it by


@contextmanager
def driving(files: Files) -> Iterator[None]:
    """Hold the run directory for this process. The system lets go when the process ends, however it ends.

    Raises UserError, naming process and host, where another driver holds it.
    """
    root = Path(files.root)
    with (root / NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{root}: another driver is at work here{_holder(root)}; wait for it, or end it") from None
        file.seek(0)
        file.truncate()
        file.write(
            json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()})
        )
        file.flush()
        yield


def _holder(root: Path) -> str:
    try:
        said = json.loads((root / NAME).read_text())
    except ValueError:
        return ""
    return f" (process {said['pid']} on {said['host']} since {said['since']})"
