"""Follow a job to its end: its log as it grows, over lost connections, and the exit code that it amounts to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from orchestrator.cluster.jobs import Jobs

PATIENCE = 120.0  # seconds without an answer after which a cluster counts as gone
OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


class ClusterGone(Exception):
    """The job server has not answered for `PATIENCE` seconds."""


def follow(jobs: Jobs, job: str, write: Callable[[str], None]) -> Any:
    """The job's details once it has ended; its log is written on the way, nothing of it twice.

    Raises ClusterGone where the server stays silent, KeyboardInterrupt where the user ends it: the job goes on then.
    """
    written, heard = _Written(write), time.monotonic()
    while True:
        try:
            asyncio.run(_tail(jobs, job, written))
            details = jobs.get_job_info(job)
            if _has_ended(details):
                return details
            heard = time.monotonic()
        except (OSError, RuntimeError, _client_error()) as error:
            if time.monotonic() - heard > PATIENCE:
                raise ClusterGone(str(error)) from error
        time.sleep(1.0)


def exit_code(details: Any) -> int:
    """0 done, 1 failed, 2 the spec or the call is wrong there, 130 interrupted: as `robustsweep run` ended."""
    status, code = str(getattr(details.status, "value", details.status)), details.driver_exit_code
    if status == "SUCCEEDED":
        return OK
    if status == "STOPPED":
        return INTERRUPTED
    return code if code in (WRONG, INTERRUPTED) else FAILED


def why(details: Any) -> str:
    """What there is to say about a job that did not succeed, beyond its log."""
    code = details.driver_exit_code
    if code == 127:
        return "the cluster has no command `python`: install it there, or give it a PATH in --runtime-env (env_vars)"
    if code is None:
        return str(details.message or "no reason is known")
    signal = -code if code < 0 else code - 128  # a shell adds 128
    return f"its process was ended by signal {signal}" if 0 < signal < 65 else f"its exit code was {code}"


class _Written:
    """Passes on each part of a log once, though each connection begins at its start."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._longest, self._seen = write, 0, 0

    def restart(self) -> None:
        self._seen = 0

    def take(self, text: str) -> None:
        new = text[max(0, self._longest - self._seen) :]
        self._seen += len(text)
        self._longest = max(self._longest, self._seen)
        if new:
            self._write(new)


async def _tail(jobs: Jobs, job: str, written: _Written) -> None:
    written.restart()
    async for text in jobs.tail_job_logs(job):
        written.take(text)


def _has_ended(details: Any) -> bool:
    return str(getattr(details.status, "value", details.status)) in ("SUCCEEDED", "FAILED", "STOPPED")


def _client_error() -> type[Exception]:
    from aiohttp import ClientError

    return ClientError
