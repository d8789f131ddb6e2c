"""A hold in an object store, which knows no locks: renewed while its holder lives, taken over when it is not.

Each hold is a file `NAME/<number>.json`, the newest number counts, and numbers are created once, so that one of
several successors gets the next. Nobody compares clocks: a successor watches the file, and a hold whose file has
not changed for `LEASE` seconds of watching is over. A driver that was stalled for longer finds a newer number.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from orchestrator.errors import UserError
from orchestrator.storage.files import Files
from orchestrator.storage.hold import HeldByAnother, myself, refusal
from orchestrator.storage.processes import Process

LEASE = 30.0  # seconds without a sign of life after which a hold is over
RENEW = 3.0  # seconds between two signs of life
WATCH = 0.5  # seconds between two looks at another's hold


class LeaseLost(UserError):
    """This process was stalled for so long that another one took over."""


@dataclass
class Lease:
    """The hold of this process, number `number`. `renew` gives a sign of life, `check` is for the main thread."""

    files: Files
    directory: str
    number: int
    clock: Callable[[], float] = time.monotonic
    who: str = "driver"
    _is_lost: bool = False
    _renewed: float = 0.0
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _token: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        self._renewed = self.clock()

    @property
    def name(self) -> str:
        return _name(self.directory, self.number)

    def renew(self) -> None:
        """Give a sign of life, unless the hold is lost. Raises OSError where the store is out of reach."""
        with self._turn:
            if _newest(self.files, self.directory) != self.number:
                self._is_lost = True
                return
            self.files.replace(self.name, self.content())
            self._renewed = self.clock()

    def check(self) -> None:
        """Raises LeaseLost where another one has taken over; looks, where the last sign of life is long ago."""
        if not self._is_lost and self.clock() - self._renewed > LEASE:
            self.renew()
        if self._is_lost:
            raise LeaseLost(
                f"{self.files}: this {self.who} was stalled for more than {LEASE:.0f} s, and another one has taken "
                "over; this one ends, and what was finished is kept"
            )

    def release(self) -> None:
        """Leave word that the run is free. The file stays: numbers only grow, so that nobody mistakes them."""
        with suppress(OSError):  # a store out of reach hears nothing; the silence says it later
            self.renew()
            if not self._is_lost:
                self.files.replace(self.name, self.content(is_over=True))

    def content(self, is_over: bool = False) -> bytes:
        """Different at each sign of life."""
        said = {**myself(), "process": Process.this().name, "token": self._token, "is_over": is_over}
        return json.dumps({**said, "sign": secrets.token_hex(8)}).encode()


@contextmanager
def leased(
    files: Files,
    directory: str,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    who: str = "driver",
) -> Iterator[Lease]:
    """Hold it, with a thread that renews the hold. Raises HeldByAnother where another holder is seen alive."""
    files.make_directory(directory)
    lease = _taken(files, directory, say, clock, pause, who)
    over = threading.Event()
    thread = threading.Thread(target=_keep, args=(lease, over), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        over.set()
        thread.join(timeout=2 * RENEW)
        lease.release()


def _keep(lease: Lease, over: threading.Event) -> None:
    while not over.wait(RENEW):
        try:
            lease.renew()
        except OSError:  # nobody can take over in a store that is out of reach; when it is back, this goes on
            continue


def _taken(
    files: Files,
    directory: str,
    say: Callable[[str], None],
    clock: Callable[[], float],
    pause: Callable[[float], None],
    who: str = "driver",
) -> Lease:
    """The next number, when the newest hold is over."""
    while True:
        newest = _newest(files, directory)
        if newest and not _is_over(files, directory, newest, say, clock, pause, who):
            raise HeldByAnother(refusal(files, who, _read(files, directory, newest)[1]))
        lease = Lease(files, directory, newest + 1, clock, who)
        if files.create(lease.name, lease.content()):
            for old in _numbers(files, directory):
                if old < lease.number:
                    files.delete(_name(directory, old))
            return lease


def _is_over(
    files: Files,
    directory: str,
    number: int,
    say: Callable[[str], None],
    clock: Callable[[], float],
    pause: Callable[[float], None],
    who: str,
) -> bool:
    """Whether a hold is free or dead, seen by watching it for up to `LEASE` seconds in which the store answers."""
    first, holder = _read(files, directory, number)
    began, is_told = clock(), False
    while True:
        if holder is None or holder["is_over"] or _is_dead(holder):
            return True
        if clock() - began >= LEASE:
            return True
        if not is_told and clock() - began > 2 * RENEW:
            say(
                f"{files}: the {who} that was at work here (process {holder['pid']} on {holder['host']}) is silent; "
                f"taking over when it has been for {LEASE:.0f} s"
            )
            is_told = True
        pause(WATCH)
        looked = clock()
        try:
            content, holder = _read(files, directory, number)
        except OSError:
            began = clock()  # a store that is out of reach hears no signs of life either
            continue
        if holder is not None and content != first:
            return bool(holder["is_over"])
        if clock() - looked > RENEW:  # it was out of reach, and somebody was patient
            began = clock()


def _is_dead(holder: dict[str, object]) -> bool:
    process = Process.named(str(holder["process"]))
    return process is not None and process.is_alive() is False


def _read(files: Files, directory: str, number: int) -> tuple[bytes, dict[str, object] | None]:
    """A hold's content, and what it says; None where it is gone or unreadable."""
    try:
        content = files.read(_name(directory, number))
        said = json.loads(content)
        return content, {key: said[key] for key in ("pid", "host", "since", "process", "is_over")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return b"", None


def _newest(files: Files, directory: str) -> int:
    """The number of the newest hold, 0 where there was none."""
    return max(_numbers(files, directory), default=0)


def _numbers(files: Files, directory: str) -> list[int]:
    stems = (name.removesuffix(".json") for name in files.names(directory))
    return [int(stem) for stem in stems if stem.isdecimal()]


def _name(directory: str, number: int) -> str:
    return f"{directory}/{number:08d}.json"
