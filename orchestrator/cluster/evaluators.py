"""A pool of actors that attack finished models while others train."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from orchestrator.cluster.silence import Silence
from orchestrator.errors import SweepStopped
from orchestrator.measurement import Assignment, Found
from orchestrator.storage.patience import StoreLost
from orchestrator.work import Evaluates, Work

ATTEMPTS = 4  # how often an assignment is handed out when its evaluator dies
IN_ADVANCE = 4  # assignments that an evaluator may have at a time, where more wait than there are evaluators
UNUSUAL, HOPELESS = 60.0, 1800.0  # seconds without any evaluator, after which this is said, and given up
CANNOT_WORK = (RayTaskError, ActorDiedError, RuntimeEnvSetupError, ActorUnschedulableError, ActorPlacementGroupRemoved)
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
    """An assignment and its life so far, and the split it measures on."""

    assignment: Assignment
    split: Any
    deaths: list[str] = field(default_factory=list)
    hangs: int = 0


@dataclass(eq=False)
class _Place:
    """An evaluator and what it was handed, by reference: the first is being measured. It may have been ended by us."""

    actor: Any
    handed: dict[Any, _Job] = field(default_factory=dict)
    was_ended: bool = False


class NoEvaluator(SweepStopped):
    """None of a sweep's evaluators can work: says why. What was trained waits to be evaluated by the next run."""


class EvaluatorActor:
    """An evaluator in a process of its own."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._evaluator: Evaluates | None = None

    @ray.method(max_task_retries=-1)
    def is_up(self) -> bool:
        """True, once the process has started and can work. Raises what keeps it from working."""
        self._open()
        return True

    def evaluate(self, assignment: Assignment, split: Any) -> Found:
        return self._open().evaluate(assignment, split)

    def _open(self) -> Evaluates:
        if self._evaluator is None:
            self._work.load_modules()
            self._evaluator = self._work.evaluator(bool(ray.get_gpu_ids()))
        return self._evaluator


class EvaluatorPool:
    """Hands assignments to free evaluators, oldest first; `poll` gives back what is done.

    An evaluator that died is restarted by Ray and its assignment handed out again, up to `ATTEMPTS` times; one that
    gave no answer for `time_limit` seconds is ended, which counts as a death. One that cannot begin to work is given
    up, which `troubles` say; `poll` raises NoEvaluator when none is left.
    """

    def __init__(self, work: Work, places: Sequence[Mapping[str, Any]], time_limit: float = float("inf")) -> None:
        """`places` are the options of each actor, which say where it lives and what it has."""
        kind: Any = ray.remote(EvaluatorActor)
        self.size, self.time_limit = len(places), time_limit
        self.troubles: list[str] = []
        self._silence: Silence[_Place] = Silence(time_limit)
        self._none_since = time.monotonic()  # how long there has been no evaluator, if there is none
        self._is_missed = False
        self._up: list[_Place] = []
        self._starting: dict[Any, _Place] = {}  # places by a reference that is there once their process is
        for options in places:
            self._await(_Place(kind.options(**options).remote(work)))
        self._waiting: deque[_Job] = deque()
        self._running: dict[Any, _Place] = {}

    @property
    def pending(self) -> int:
        """Assignments that were not given back yet."""
        return len(self._waiting) + len(self._running)

    @property
    def seconds_without_any(self) -> float:
        """For how long there has been no evaluator that is up; 0 while there is one."""
        return 0.0 if self._up else time.monotonic() - self._none_since

    def submit(self, assignment: Assignment, split: Any) -> None:
        """Queue an assignment; `split` is an object reference to the split it measures on."""
        if not self.pending and not self._up:
            self._none_since = time.monotonic()  # nobody has asked before
        self._waiting.append(_Job(assignment, split))
        self._hand_out()

    def poll(self, timeout: float = 0.0) -> list[Verdict]:
        """What was finished, waiting at most `timeout` seconds for something to finish."""
        if not self.pending:
            return []
        watched = [*self._running, *self._starting]
        if timeout:
            ray.wait(watched, num_returns=1, timeout=timeout)
        done, _ = ray.wait(watched, num_returns=len(watched), timeout=0)
        verdicts = [self._collect(reference) for reference in done if reference in self._running]
        for reference in done:
            if reference in self._starting:
                self._take_in(reference)
        self._look_for_any()
        self._end_silent()
        self._hand_out()
        return [verdict for verdict in verdicts if verdict is not None]

    def close(self) -> None:
        """End the actors."""
        for place in [*self._up, *self._starting.values()]:
            ray.kill(place.actor)

    def _hand_out(self) -> None:
        """To whoever has nothing; where there is more than enough for all, some in advance.

        A sweep of quick evaluations looks in less often than they end.
        """
        while self._waiting and self._up:
            place = min(self._up, key=lambda place: len(place.handed))
            most = IN_ADVANCE if len(self._waiting) > self.size else 1
            if len(place.handed) >= most:
                return
            job = self._waiting.popleft()
            if not place.handed:
                self._silence.heard(place)
            reference = place.actor.evaluate.remote(job.assignment, job.split)
            place.handed[reference] = job
            self._running[reference] = place

    def _await(self, place: _Place) -> None:
        """Use an actor only once its process is up: a call to one that is restarting fails at once."""
        if place in self._up:
            self._up.remove(place)
            self._none_since = time.monotonic()
        self._silence.forget(place)
        if place not in self._starting.values():
            self._starting[place.actor.is_up.remote()] = place

    def _take_in(self, reference: Any) -> None:
        place = self._starting.pop(reference)
        try:
            ray.get(reference)
            place.was_ended = False
            self._up.append(place)
        except CANNOT_WORK as error:  # Ray would have restarted one that merely died
            why = _plain(error).splitlines()[-1]
            self.troubles.append(f"an evaluator cannot work and is given up: {why}")
            if not self._up and not self._starting:
                raise NoEvaluator(f"no evaluator can work: {why}") from error
        except RayError:
            self._await(place)

    def _look_for_any(self) -> None:
        """Say that no evaluator comes up, and at last that none will: one that dies while it begins raises nothing."""
        missing = self.seconds_without_any
        if missing > HOPELESS:
            raise NoEvaluator(f"no evaluator has come up for {missing:.0f} s: each may die as it begins")
        if missing > UNUSUAL and not self._is_missed:
            self.troubles.append(f"no evaluator has come up for {missing:.0f} s; waiting up to {HOPELESS:.0f} s")
        self._is_missed = missing > UNUSUAL

    def _end_silent(self) -> None:
        """End the evaluators whose time is up; Ray restarts them, and `_collect` hears of the death."""
        for place in self._silence.overdue():
            self._silence.forget(place)
            next(iter(place.handed.values())).hangs += 1
            place.was_ended = True
            ray.kill(place.actor, no_restart=False)

    def _collect(self, reference: Any) -> Verdict | None:
        """The verdict on an assignment, or None where it is to be tried again."""
        place = self._running.pop(reference)
        is_first = next(iter(place.handed)) == reference
        job = place.handed.pop(reference)
        try:
            verdict = Verdict(job.assignment, ray.get(reference), None, tuple(job.deaths))
            self._begin_next(place)
            return verdict
        except RayTaskError as error:
            if isinstance(error.cause, StoreLost):  # says nothing about the trial
                raise StoreLost(str(error.cause)) from None
            self._begin_next(place)
            return Verdict(job.assignment, None, _plain(error), tuple(job.deaths))
        except RayError as error:  # the actor, its node, or an object it needed is gone
            is_first = is_first and place in self._up
            self._await(place)
            if is_first:
                job.deaths.append(
                    f"no answer in {self.time_limit:g} s" if place.was_ended else f"its evaluator died: {_plain(error)}"
                )
        if len(job.deaths) < ATTEMPTS and job.hangs < HANGS:
            self._waiting.appendleft(job)
            return None
        return Verdict(
            job.assignment, None, "the evaluation was given up:\n" + "\n".join(job.deaths), tuple(job.deaths)
        )

    def _begin_next(self, place: _Place) -> None:
        """An evaluator has answered: its time for the next assignment begins, if it has one."""
        if place.handed:
            self._silence.heard(place)
        else:
            self._silence.forget(place)


def _plain(error: Exception) -> str:
    """What Ray says of an error, without the colours it says it in."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
