"""A pool of actors that attack finished models while others train."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from orchestrator.measurement import Assignment, Found
from orchestrator.work import Work

ATTEMPTS = 4  # how often an assignment is handed out when its evaluator dies
HANGS = 2  # how often it may go without an answer for the time limit


@dataclass(frozen=True)
class Verdict:
    """What came back: what was found, or what went wrong; `retries` says why each was."""

    assignment: Assignment
    found: Found | None
    error: str | None
    retries: tuple[str, ...] = ()


@dataclass
class _Job:
    """An assignment and its life so far: the split it measures on, who has it, and since when (inf: was ended)."""

    assignment: Assignment
    split: Any
    actor: Any = None
    since: float = 0.0
    deaths: list[str] = field(default_factory=list)
    hangs: int = 0


class EvaluatorActor:
    """An evaluator in a process of its own."""

    def __init__(self, work: Work) -> None:
        work.load_modules()
        self._evaluator = work.evaluator(bool(ray.get_gpu_ids()))

    @ray.method(max_task_retries=-1)
    def is_up(self) -> bool:
        """True, once the process has started."""
        return True

    def evaluate(self, assignment: Assignment, split: Any) -> Found:
        return self._evaluator.evaluate(assignment, split)


class EvaluatorPool:
    """Hands assignments to free evaluators, oldest first; `poll` gives back what is done.

    An evaluator that died is restarted by Ray and its assignment handed out again, up to `ATTEMPTS` times; one that
    gave no answer for `time_limit` seconds is ended, which counts as a death.
    """

    def __init__(self, work: Work, places: Sequence[Mapping[str, Any]], time_limit: float = float("inf")) -> None:
        """`places` are the options of each actor, which say where it lives and what it has."""
        kind: Any = ray.remote(EvaluatorActor)
        self.size, self.time_limit = len(places), time_limit
        self._free: deque[Any] = deque()
        self._starting: dict[Any, Any] = {}  # actors by a reference that is there once their process is
        for options in places:
            self._await(kind.options(**options).remote(work))
        self._waiting: deque[_Job] = deque()
        self._running: dict[Any, _Job] = {}

    @property
    def pending(self) -> int:
        """Assignments that were not given back yet."""
        return len(self._waiting) + len(self._running)

    def submit(self, assignment: Assignment, split: Any) -> None:
        """Queue an assignment; `split` is an object reference to the split it measures on."""
        self._waiting.append(_Job(assignment, split))
        self._hand_out()

    def poll(self, timeout: float = 0.0) -> list[Verdict]:
        """What was finished, waiting at most `timeout` seconds for something to finish."""
        if not self.pending:
            return []
        self._end_silent()
        watched = [*self._running, *self._starting]
        if timeout:
            ray.wait(watched, num_returns=1, timeout=timeout)
        done, _ = ray.wait(watched, num_returns=len(watched), timeout=0)
        verdicts = [self._collect(reference) for reference in done if reference in self._running]
        for reference in done:
            if reference in self._starting:
                self._take_in(reference)
        self._hand_out()
        return [verdict for verdict in verdicts if verdict is not None]

    def close(self) -> None:
        """End the actors."""
        for actor in [*self._free, *self._starting.values(), *(job.actor for job in self._running.values())]:
            ray.kill(actor)

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            job = self._waiting.popleft()
            job.actor, job.since = self._free.popleft(), time.monotonic()
            self._running[job.actor.evaluate.remote(job.assignment, job.split)] = job

    def _await(self, actor: Any) -> None:
        """Use an actor only once its process is up: a call to one that is restarting fails at once."""
        self._starting[actor.is_up.remote()] = actor

    def _take_in(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            ray.get(reference)
            self._free.append(actor)
        except RayError:
            self._await(actor)

    def _end_silent(self) -> None:
        """End the evaluators whose time is up; Ray restarts them, and `_collect` hears of the death."""
        for job in self._running.values():
            if time.monotonic() - job.since > self.time_limit:
                job.hangs += 1
                job.since = float("inf")
                ray.kill(job.actor, no_restart=False)

    def _collect(self, reference: Any) -> Verdict | None:
        """The verdict on an assignment, or None where it is to be tried again."""
        job = self._running.pop(reference)
        try:
            verdict = Verdict(job.assignment, ray.get(reference), None, tuple(job.deaths))
            self._free.append(job.actor)
            return verdict
        except RayTaskError as error:
            self._free.append(job.actor)
            return Verdict(job.assignment, None, str(error), tuple(job.deaths))
        except RayError as error:  # the actor, its node, or an object it needed is gone
            self._await(job.actor)
            was_silent = job.since == float("inf")
            job.deaths.append(f"no answer in {self.time_limit:g} s" if was_silent else f"its evaluator died: {error}")
        if len(job.deaths) < ATTEMPTS and job.hangs < HANGS:
            self._waiting.appendleft(job)
            return None
        return Verdict(
            job.assignment, None, "the evaluation was given up:\n" + "\n".join(job.deaths), tuple(job.deaths)
        )
