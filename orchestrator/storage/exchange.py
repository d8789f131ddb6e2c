"""Two directories change places in one step: there is no moment at which either name is missing."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_HERE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class CannotExchange(OSError):
    """This system, or this file system, has no such step."""


def exchange(first: Path, second: Path) -> None:
    """Swap two names of one file system (Linux 3.15, renameat2). Raises CannotExchange where there is no such call."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError) as error:
        raise CannotExchange(errno.ENOSYS, "no renameat2 here") from error
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    kind = CannotExchange if number in _NOT_HERE else OSError
    raise kind(number, os.strerror(number), str(first), None, str(second))
