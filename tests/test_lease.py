"""Claims about the hold on a run where there are no locks; the laws are of files, so a disk serves as well as S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

from orchestrator.errors import UserError
from orchestrator.storage import lease
from orchestrator.storage.files import Files, open_files
from orchestrator.storage.lease import LEASE, RENEW, Lease, LeaseLost, leased
from orchestrator.storage.patience import Patient

PLACE = ".driver"
ELSEWHERE = "0123456789abcdef-77-1"  # a process of a machine that this one cannot look into


@dataclass
class Time:
    """A clock that only pauses move; `then` is what the rest of the world does meanwhile."""

    now: float = 0.0
    then: Callable[[], object] = lambda: None
    said: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.then()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = open_files(tmp_path)
    made.make_directory(PLACE)
    return made


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is written in here is written by a process of another machine."""
    with monkeypatch.context() as patch:
        patch.setattr(lease.Process, "name", ELSEWHERE)
        yield


def held_elsewhere(files: Files, monkeypatch: pytest.MonkeyPatch) -> Lease:
    with elsewhere(monkeypatch):
        found = Lease(files, PLACE, 1)
        assert files.create(found.name, found.content())
    return found


def take(files: Files, time: Time) -> Lease:
    return lease._taken(files, PLACE, time.said.append, time.clock, time.pause)


def test_a_hold_that_gives_signs_of_life_is_not_taken_over(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    holder, time = held_elsewhere(files, monkeypatch), Time()
    time.then = lambda: holder.renew() if time.now >= RENEW else None
    with pytest.raises(UserError, match="another driver is at work here"):
        take(files, time)
    assert time.now <= RENEW + 1
    holder.check()


def test_a_silent_hold_is_taken_over_after_a_while_which_is_said_once(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, time = held_elsewhere(files, monkeypatch), Time()
    successor = take(files, time)
    assert LEASE <= time.now <= LEASE + 1
    assert len(time.said) == 1
    assert "is silent; taking over when it has been for 30 s" in time.said[0]
    successor.renew()
    successor.check()
    holder.renew()
    with pytest.raises(LeaseLost, match="another one has taken over"):
        holder.check()


def test_who_comes_back_from_a_long_stall_learns_it_before_the_next_sign_of_life(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    holder = Lease(files, PLACE, 1, time.clock)
    files.create(holder.name, holder.content())
    holder.check()
    with elsewhere(monkeypatch):
        files.create(f"{PLACE}/00000002.json", holder.content())
    holder.check()  # the sign of life was a moment ago: nobody can have taken over
    time.now = LEASE + 1
    with pytest.raises(LeaseLost):
        holder.check()


def test_a_lost_hold_gives_no_more_signs_even_when_its_successor_is_gone(files: Files) -> None:
    first = take(files, Time())
    first.release()
    second = take(files, Time())
    second.release()
    before = files.names(PLACE)
    first.renew()
    assert files.names(PLACE) == before == ["00000002.json"]
    with pytest.raises(LeaseLost):
        first.check()
    assert take(files, Time()).number == 3


def test_a_released_hold_is_free_at_once(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere(monkeypatch):
        take(files, Time()).release()
    time = Time()
    take(files, time)
    assert (time.now, time.said) == (0.0, [])


def test_a_dead_process_of_this_machine_is_succeeded_at_once(files: Files) -> None:
    me = lease.Process.this()
    dead = lease.Process(me.space, me.pid, me.started + 1)  # the pid was given out again
    content = json.loads(Lease(files, PLACE, 1).content()) | {"process": dead.name}
    files.create(f"{PLACE}/00000001.json", json.dumps(content).encode())
    time = Time()
    assert take(files, time).number == 2
    assert time.now == 0.0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}'])
def test_a_damaged_hold_is_nobodys(files: Files, content: bytes) -> None:
    files.replace(f"{PLACE}/00000004.json", content)
    assert take(files, Time()).number == 5


def test_of_many_successors_one_gets_the_run(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere(monkeypatch):
        take(files, Time()).release()
    monkeypatch.setattr(lease, "WATCH", 0.01)
    barrier, got, refused = Barrier(8), list[Lease](), list[UserError]()

    def work() -> None:
        barrier.wait()
        time = Time()

        def then() -> None:  # whoever has it is alive
            for found in list(got):
                found.renew()

        time.then = then
        try:
            got.append(take(files, time))
        except UserError as error:
            refused.append(error)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].renew()
    got[0].check()


@dataclass
class Away:
    """Files that are out of reach while `is_away`."""

    files: Files
    is_away: bool = False

    def __getattr__(self, name: str) -> object:
        if self.is_away and name in ("read", "names", "replace", "create"):
            raise OSError("AWS Error NETWORK_CONNECTION")
        return getattr(self.files, name)


@pytest.mark.parametrize("is_patient", [False, True])
def test_an_outage_of_the_store_is_not_taken_for_silence(
    files: Files, monkeypatch: pytest.MonkeyPatch, is_patient: bool
) -> None:
    holder, time, away = held_elsewhere(files, monkeypatch), Time(), Away(files)

    def world() -> None:  # gone from second 2 to 62, and 20 s later the holder has found out
        away.is_away = 2 <= time.now < 62
        if time.now >= 82:
            holder.renew()

    time.then = world
    seen: Files = Patient(away, 150.0, None, time.clock, time.pause) if is_patient else away  # type: ignore[arg-type]
    with pytest.raises(UserError, match="another driver is at work here"):
        take(seen, time)
    assert 82 <= time.now < 95


def test_a_store_out_of_reach_at_the_end_does_not_hide_what_happened(files: Files) -> None:
    away = Away(files)

    def run() -> None:
        away.is_away = True
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), leased(away, PLACE, lambda _: None):  # type: ignore[arg-type]
        run()


def test_signs_of_life_are_given_while_the_run_is_held(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.01)
    with leased(files, PLACE, lambda _: None) as held:
        first = files.read(held.name)
        given = Event()
        renew = held.renew
        monkeypatch.setattr(held, "renew", lambda: (renew(), given.set()))
        assert given.wait(30)
        assert files.read(held.name) != first
    assert json.loads(files.read(held.name))["is_over"]
