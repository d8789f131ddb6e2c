"""Kills at random moments until a sweep ends, and lets it end after so many kills."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from kills.nodes import Cluster
from kills.processes import Process, below, bury
from kills.running import Running
from kills.victims import DRIVER, EVALUATOR, GROUP, NODE, TRAINER, VICTIMS, playing, workers

PER_TRIAL = 2  # of a trial's workers; with more deaths than it allows a trial is rightly recorded as failed
TICK = 0.05  # seconds


@dataclass
class Killer:
    """`most` kills in one sweep. Half of those that end a driver may fall into its start; the others wait for work."""

    running: Running
    seed: int
    most: int
    cluster: Cluster | None = None
    victims: Sequence[str] = VICTIMS
    patience: float = 600.0  # seconds without a kill or an end, after which the sweep hangs
    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _blows: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def until_done(self) -> None:
        """Start, kill, start again; returns when the command has ended; `wrong` says what went wrong."""
        self.running.start()
        while self.kills.total() < self.most:
            if self._wait_for(self._victim()) is not None:
                break
        if self._ended(self.patience) is None:
            self.wrong.append(f"the sweep did not end within {self.patience:g} s: {self.running.last_words()}")
            return
        self._wait_out_orphans()

    def _victim(self) -> str:
        """Nodes are there in a cluster only, and the processes of a run are one group only without."""
        absent = GROUP if self.cluster else NODE
        return self._random.choice([role for role in self.victims if role != absent])

    def _wait_for(self, role: str) -> int | None:
        """Kill one that plays this role, once there is one; the exit code if the command has ended before."""
        needs_work = role in (TRAINER, EVALUATOR) or self._random.random() < 0.7
        deadline = time.monotonic() + self._random.uniform(20, 60)
        while needs_work and not playing(TRAINER if role != EVALUATOR else EVALUATOR, self._workers()):
            if (code := self._ended(TICK)) is not None:
                return code
            if time.monotonic() > deadline:
                return None  # nobody plays it now: another victim
        if (code := self._ended(self._random.uniform(0, 6 if needs_work else 12))) is not None:
            return code
        self._strike(role)
        return None

    def _strike(self, role: str) -> None:
        if role in (DRIVER, GROUP):
            self.running.kill_driver(workers(self._workers()), also_workers=role == GROUP)
            self.kills[role] += 1
            self.running.poll()
            if self._random.random() < 0.5:  # at once, while what was orphaned still works, or after a while
                time.sleep(self._random.uniform(0, 5))
            self.running.start()
            return
        if role == NODE:
            assert self.cluster is not None
            place = self._random.randrange(len(self.cluster.nodes))
            if self._may_hit(role):
                self.cluster.replace(place)
                self.kills[role] += 1
            return
        found = playing(role, self._workers())
        if found and self._may_hit(role) and self._random.choice(found).kill():
            self.kills[role] += 1

    def _may_hit(self, role: str) -> bool:
        """Whether the trial at work may lose one more worker. It is that which was asked for last."""
        try:
            asks = pd.read_parquet(self.running.root / "asks")
        except FileNotFoundError:
            return False
        trial = str(asks.sort_values("asked_at")["trial_id"].iloc[-1]) if len(asks) else ""
        self._blows[trial, role] += 1
        return self._blows[trial, role] <= PER_TRIAL and self._blows[trial, NODE] + self._blows[trial, role] <= 3

    def _workers(self) -> list[Process]:
        driver = self.running.driver
        assert driver is not None
        roots = [driver.pid, *(self.cluster.pids if self.cluster else ())]
        return below(roots)

    def _ended(self, seconds: float) -> int | None:
        """Wait so long, or until the command ends; a bad end is noted."""
        deadline = time.monotonic() + seconds
        while True:
            code = self.running.poll()
            if self.cluster is not None:
                self.cluster.tend()
            driver = self.running.driver
            bury({*(self.cluster.pids if self.cluster else ()), *([driver.pid] if driver else [])})
            if code is not None:
                if code and not self.wrong:
                    self.wrong.append(f"the command ended with {code}: {self.running.last_words()}")
                return code
            if time.monotonic() > deadline:
                return None
            time.sleep(min(TICK, seconds))

    def _wait_out_orphans(self) -> None:
        while self.running.doomed:
            self.running.poll()
            with contextlib.suppress(ChildProcessError):
                bury(self.cluster.pids if self.cluster else ())
            time.sleep(TICK)
