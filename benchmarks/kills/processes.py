"""The processes that this one started, however deep, and those whose parents died; never any other. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """One process; `started` tells it from a later one with the same number."""

    pid: int
    parent: int
    started: int  # clock ticks since the machine's start
    title: str

    def kill(self) -> bool:
        """SIGKILL; whether it was still there."""
        if not is_alive(self):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False


def adopt_orphans() -> None:
    """From now on a process below this one whose parent dies becomes a child of this one, and stays in sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def below(roots: Iterable[int]) -> list[Process]:
    """All living processes below these, without themselves."""
    table = _table()
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found, waiting = dict[int, Process](), list(roots)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child.pid not in found:
                found[child.pid] = child
                waiting.append(child.pid)
    return list(found.values())


def subtree(root: int) -> list[Process]:
    """A living process and all below it."""
    return [process for process in _table().values() if process.pid == root] + below([root])


def is_alive(process: Process) -> bool:
    """Whether it is there still, and no zombie."""
    now = _read(process.pid)
    return now is not None and now.started == process.started


def bury(but: Collection[int]) -> None:
    """Take note of the deaths of adopted processes; `but` are those on which somebody else waits."""
    me = os.getpid()
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat[0] == "Z" and int(stat[1]) == me and pid not in but:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def end(processes: Iterable[Process], seconds: float = 20.0) -> None:
    """SIGKILL these, and wait until they are gone."""
    left, deadline = list(processes), time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        left = [process for process in left if process.kill()]
        time.sleep(0.05)


def _table() -> dict[int, Process]:
    return {process.pid: process for pid in _pids() if (process := _read(pid)) is not None}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int) -> Process | None:
    """The process with this number; None for none, and for a zombie."""
    stat = _stat(pid)
    if stat is None or stat[0] in "ZX":
        return None
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return Process(pid, int(stat[1]), int(stat[19]), title)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat that follow the name: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
