"""Which process wrote something, and whether it is still alive, as far as this machine can see."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"([0-9a-f]{16})-(\d+)-(\d+)")


@dataclass(frozen=True)
class Process:
    """`space` is where `pid` means something (this boot of this host, this namespace); `started` tells reused pids."""

    space: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls(_space(), os.getpid(), _started(os.getpid()) or 0)

    @property
    def name(self) -> str:
        """As text, for file names."""
        return f"{self.space}-{self.pid}-{self.started}"

    @classmethod
    def named(cls, name: str) -> Process | None:
        """The process of a name; None where it is no such name."""
        found = _NAME.fullmatch(name)
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    def is_alive(self) -> bool | None:
        """None where this machine cannot tell: a process of another host, or of another namespace."""
        if self.space != _space():
            return None
        started = _started(self.pid)
        if started is None:
            return False if Path("/proc/self/stat").exists() else _answers(self.pid)
        return started == self.started


@functools.lru_cache(maxsize=1)
def _space() -> str:
    told = [socket.gethostname()]
    for tell in (_boot, _namespace):
        try:
            told.append(tell())
        except OSError:
            continue
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the boot; None where there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
