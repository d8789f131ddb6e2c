"""Files written once in a store that can only overwrite: held over thousands of orders in which writers may act."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import s3_server

from orchestrator.storage import claims
from orchestrator.storage.claims import CLAIMS, PROMPT, STALE, create_once
from orchestrator.storage.files import open_files

NAME = "part"


class Killed(BaseException):
    """The writer is no more: none of its later steps is taken, not even those that clear up."""


@dataclass
class Bucket:
    """A store whose clock stands still but for `now`; every step waits for its turn."""

    turns: Turns
    now: float = 1000.0
    content: dict[str, bytes] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    written: list[bytes] = field(default_factory=list)  # every content that NAME ever had

    def replace(self, name: str, content: bytes) -> None:
        self.turns.wait()
        self.content[name], self.at[name] = content, self.now
        if name == NAME:
            self.written.append(content)

    def exists(self, name: str) -> bool:
        self.turns.wait()
        return name in self.content

    def delete(self, name: str) -> None:
        self.turns.wait()
        self.content.pop(name, None)

    def changed(self, directory: str) -> dict[str, float]:
        self.turns.wait()
        start = directory + "/"
        return {name.removeprefix(start): self.at[name] for name in self.content if name.startswith(start)}


@dataclass
class Turns:
    """Lets one writer at a time take one step, in an order that `choice` draws; kills some of them on the way."""

    choice: random.Random
    kills: float
    waiting: dict[int, threading.Semaphore] = field(default_factory=dict)
    asleep: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    ready: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def wait(self) -> None:
        me = threading.get_ident()
        if me in self.dead:
            raise Killed
        self.ready.release()
        self.waiting[me].acquire()
        if me in self.dead:
            raise Killed

    def sleep(self, _: float) -> None:
        self.asleep.add(threading.get_ident())
        self.wait()

    def play(self, writers: list[threading.Thread], bucket: Bucket) -> None:
        """Until all writers have ended. Time passes only when all of them wait: nobody is slower than is allowed."""
        living, steps = list(writers), 0
        while True:
            for _ in living:
                self.ready.acquire()  # each has come to its next step, or to its end
            living = [writer for writer in living if writer.is_alive() and not getattr(writer, "is_over", False)]
            if not living:
                return
            awake = [writer for writer in living if writer.ident not in self.asleep]
            if not awake:
                bucket.now += 0.4 * STALE
                self.asleep.clear()
                awake = living
            chosen = self.choice.choice(awake)
            assert chosen.ident is not None
            steps += 1
            assert steps < 2000, "somebody waits for ever"
            if len(self.dead) < 2 and self.choice.random() < self.kills:
                self.dead.add(chosen.ident)
            self.waiting[chosen.ident].release()
            for _ in range(len(living) - 1):
                self.ready.release()  # the others are where they were


def contest(seed: int, kills: float) -> tuple[Bucket, list[bytes], int]:
    """The bucket after three writers have met, what those who won had to write, and how many ended by themselves."""
    turns = Turns(random.Random(seed), kills)
    bucket, won, ended = Bucket(turns), list[bytes](), list[bytes]()
    random.seed(seed)

    def write(content: bytes) -> None:
        me = threading.current_thread()
        turns.waiting[threading.get_ident()] = threading.Semaphore(0)
        try:
            if create_once(bucket, NAME, content, clock=lambda: bucket.now, pause=turns.sleep):
                won.append(content)
            ended.append(content)
        except Killed:
            pass
        finally:
            me.is_over = True  # type: ignore[attr-defined]
            turns.ready.release()

    writers = [threading.Thread(target=write, args=(b"%d" % place,), daemon=True) for place in range(3)]
    for writer in writers:
        writer.start()
    turns.play(writers, bucket)
    for writer in writers:
        writer.join()
    return bucket, won, len(ended)


def test_in_whatever_order_writers_act_the_file_is_written_once_and_one_is_told_so() -> None:
    for seed in range(300):
        bucket, won, ended = contest(seed, kills=0.0)
        assert (bucket.written, ended) == (won, 3), seed
        assert len(won) == 1, seed
        assert [name for name in bucket.content if name.startswith(CLAIMS)] == [], seed


def test_writers_that_die_on_the_way_never_let_it_be_written_twice_and_block_nobody() -> None:
    deaths = 0
    for seed in range(300):
        bucket, won, ended = contest(seed, kills=0.05)
        deaths += 3 - ended
        assert len(bucket.written) <= 1, seed
        assert set(won) <= set(bucket.written), seed
        assert not ended or len(bucket.written) == 1, seed
    assert deaths > 100


@dataclass
class Alone(Bucket):
    """A store for one writer, in which something happens after its first look at the claims."""

    looks: list[float] = field(default_factory=list)
    happens: Callable[[Alone], None] = lambda _: None

    def changed(self, directory: str) -> dict[str, float]:
        self.looks.append(self.now)
        found = super().changed(directory)
        if len(self.looks) == 1:
            self.happens(self)
        return found if len(self.looks) > 1 else super().changed(directory)


def alone(happens: Callable[[Alone], None]) -> Alone:
    turns = Turns(random.Random(0), 0.0)
    turns.wait = lambda: None  # type: ignore[method-assign]
    return Alone(turns, happens=happens)


def test_a_writer_that_was_stalled_before_it_wrote_claims_again() -> None:
    """It may have been taken for dead meanwhile."""

    def stall(bucket: Alone) -> None:
        bucket.now += PROMPT + 1

    bucket = alone(stall)
    assert create_once(bucket, NAME, b"x", clock=lambda: bucket.now, pause=lambda _: None)
    assert bucket.looks == [1000.0, 1000.0 + PROMPT + 1]


def test_a_writer_whose_claim_was_cleared_away_claims_again() -> None:
    bucket = alone(lambda bucket: bucket.content.clear())
    assert create_once(bucket, NAME, b"x", clock=lambda: bucket.now, pause=lambda _: None)
    assert len(bucket.looks) == 2


def test_the_guard_of_a_writer_is_well_within_the_time_after_which_it_counts_as_dead() -> None:
    assert PROMPT * 2 < STALE
    assert claims.CLAIMS.startswith(".")  # readers of the run pass it by


WRITER = """
import os, random, sys
import pyarrow.fs  # before the forks, which are so many
from orchestrator.storage.files import open_files
from orchestrator.storage.patience import Patient

status, turn = 1, 0
while status:
    turn += 1
    if os.fork() == 0:
        print("pid", os.getpid(), flush=True)
        files, me = Patient(open_files(sys.argv[1])), f"{sys.argv[2]}-{turn}"
        names = [f"d/{place}" for place in range(200)]
        random.Random(me).shuffle(names)
        for name in names:
            print(name, files.create(name, f"{me} {name}".encode()), flush=True)
        os._exit(0)
    status = os.wait()[1]
"""
KILLS = 60


@pytest.mark.parity
def test_records_are_made_once_while_writers_are_killed_and_begin_again(tmp_path: Path) -> None:
    """Four writers of the same 200 records, killed sixty times in all; whoever looks never sees a record change."""
    with s3_server.serving() as server:
        files = open_files(server.uri("campaign"))
        draw, seen, over = random.Random(0), dict[str, bytes](), threading.Event()

        def watch() -> None:
            while not over.is_set():
                for name in files.names("d"):
                    content = files.read(f"d/{name}")
                    assert seen.setdefault(name, content) == content

        def start(place: int) -> subprocess.Popen[str]:
            with (tmp_path / str(place)).open("w") as said:
                return subprocess.Popen([sys.executable, "-c", WRITER, files.root, str(place)], stdout=said, text=True)

        def told(place: int) -> list[list[str]]:
            return [line.split() for line in (tmp_path / str(place)).read_text().splitlines()]

        watcher = threading.Thread(target=watch)
        watcher.start()
        writers, killed, begun = [start(place) for place in range(4)], set[int](), 0
        while len(killed) < KILLS and any(writer.poll() is None for writer in writers):
            time.sleep(draw.uniform(0.0, 0.1))
            place = draw.randrange(4)
            lines = told(place)
            pids = [int(line[1]) for line in lines if line[0] == "pid"]
            if writers[place].poll() is None and pids and pids[-1] not in killed:
                os.kill(pids[-1], signal.SIGKILL)
                killed.add(pids[-1])
                begun += lines[-1][0] != "pid"
        assert all(writer.wait() == 0 for writer in writers)
        over.set()
        watcher.join()
        winners = [line[0] for place in range(4) for line in told(place) if line[1:] == ["True"]]
        print(f"{len(killed)} kills, {begun} of them in the middle of the work, {len(winners)} of 200 told as written")
        assert len(killed) == KILLS
        assert len(winners) == len(set(winners)) >= 200 - KILLS
        assert len(files.names("d")) == 200
        assert all(files.read(f"d/{name}") == content for name, content in seen.items())
