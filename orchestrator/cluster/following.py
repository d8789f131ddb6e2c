"""Follow a job to its end: its log as it grows, over lost connections, and the exit code that it amounts to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from orchestrator.cluster.jobs import Jobs

PATIENCE = 120.0  # seconds without an answer after which a cluster counts as gone
QUIET = 300.0  # seconds without a word of the log after which we ask whether the cluster is still there
BARREN = 5  # connections in a row that brought nothing new, after which the log of a job that has ended is given up
OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


class ClusterGone(Exception):
    """The job server has not answered for `PATIENCE` seconds."""


def follow(jobs: Jobs, job: str, write: Callable[[str], None]) -> Any:
    """The job's details once it has ended; its log is written on the way, nothing of it twice.

    A log that breaks off says little: where a proxy or the driver's node fails, the server goes on answering. Raises
    ClusterGone where it does not, KeyboardInterrupt where the user ends it: the job goes on then.
    """
    silence, written, barren = _Silence(), _Written(write), 0

    def take(text: str) -> None:
        silence.heard()
        written.take(text)

    while True:
        before = written.length
        try:
            written.restart()
            asyncio.run(_tail(jobs, job, take))
            is_whole = True
        except (OSError, RuntimeError, _client_error()) as error:
            silence.failed(error)
            is_whole = False
        barren = 0 if written.length > before else barren + 1
        try:
            details = jobs.get_job_info(job)
        except (OSError, RuntimeError) as error:
            silence.failed(error)
        else:
            silence.heard()
            if _has_ended(details) and (is_whole or barren >= BARREN):
                return details
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


class _Silence:
    """For how long nothing was heard: counted from the first failure after the last sign of life."""

    def __init__(self) -> None:
        self._since: float | None = None

    def heard(self) -> None:
        self._since = None

    def failed(self, error: Exception) -> None:
        """Raises ClusterGone where failures have followed one another for too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > PATIENCE:
            raise ClusterGone(str(error) or type(error).__name__) from error


class _Written:
    """Passes on each part of a log once, though each connection begins at its start. `length` is what there was."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self.length, self._seen = write, 0, 0

    def restart(self) -> None:
        self._seen = 0

    def take(self, text: str) -> None:
        new = text[max(0, self.length - self._seen) :]
        self._seen += len(text)
        self.length = max(self.length, self._seen)
        if new:
            self._write(new)


async def _tail(jobs: Jobs, job: str, take: Callable[[str], None]) -> None:
    """Pass on the log to its end. Raises TimeoutError where it stands still, as it does when the network is cut."""
    parts = jobs.tail_job_logs(job)
    while True:
        async with asyncio.timeout(QUIET):
            text = await anext(parts, None)
        if text is None:
            return
        take(text)


def _has_ended(details: Any) -> bool:
    return str(getattr(details.status, "value", details.status)) in ("SUCCEEDED", "FAILED", "STOPPED")


def _client_error() -> type[Exception]:
    from aiohttp import ClientError

    return ClientError
