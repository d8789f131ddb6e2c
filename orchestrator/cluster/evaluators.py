"""A pool of actors that attack finished models while others train."""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from orchestrator.cluster.allocation import Bundle
from orchestrator.judging import Assignment, Evaluator
from orchestrator.splits import Split
from orchestrator.store import Store

ATTEMPTS = 4  # how often an assignment is handed out when its evaluator dies


@dataclass(frozen=True)
class Verdict:
    """What came back: `found` as `Evaluator.evaluate` gives it, or the traceback of what went wrong."""

    assignment: Assignment
    found: dict[str, Any] | None
    error: str | None
    deaths: int = 0


class EvaluatorActor:
    """An `Evaluator` in a process of its own."""

    def __init__(self, store: Store, threads: int) -> None:
        torch.set_num_threads(threads)
        self._evaluator = Evaluator(store, "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu")

    def evaluate(self, assignment: Assignment, split: Split) -> dict[str, Any]:
        return self._evaluator.evaluate(assignment, split)


class EvaluatorPool:
    """Hands assignments to free evaluators, oldest first; `poll` gives back what is done.

    An evaluator that died is restarted by Ray and its assignment handed out again, up to `ATTEMPTS` times.
    """

    def __init__(self, store: Store, bundle: Bundle, count: int) -> None:
        kind: Any = ray.remote(num_cpus=bundle.cpus, num_gpus=bundle.gpus, max_restarts=-1, max_task_retries=0)(
            EvaluatorActor
        )
        self.size = count
        self._free: deque[Any] = deque(kind.remote(store, max(1, int(bundle.cpus))) for _ in range(count))
        self._waiting: deque[tuple[Assignment, Any, int]] = deque()
        self._running: dict[Any, tuple[Assignment, Any, int, Any]] = {}

    @property
    def pending(self) -> int:
        """Assignments that were not given back yet."""
        return len(self._waiting) + len(self._running)

    def submit(self, assignment: Assignment, split: Any) -> None:
        """Queue an assignment; `split` is an object reference to the split it measures on."""
        self._waiting.append((assignment, split, 1))
        self._hand_out()

    def poll(self, timeout: float = 0.0) -> list[Verdict]:
        """What was finished, waiting at most `timeout` seconds for something to finish."""
        if not self._running:
            return []
        done, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        if not done and timeout > 0:
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        verdicts = [verdict for reference in done if (verdict := self._collect(reference)) is not None]
        self._hand_out()
        return verdicts

    def close(self) -> None:
        """End the actors."""
        for actor in [*self._free, *(actor for *_, actor in self._running.values())]:
            ray.kill(actor)

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            assignment, split, attempt = self._waiting.popleft()
            actor = self._free.popleft()
            self._running[actor.evaluate.remote(assignment, split)] = (assignment, split, attempt, actor)

    def _collect(self, reference: Any) -> Verdict | None:
        assignment, split, attempt, actor = self._running.pop(reference)
        self._free.append(actor)
        try:
            return Verdict(assignment, ray.get(reference), None, attempt - 1)
        except RayActorError:
            if attempt >= ATTEMPTS:
                return Verdict(
                    assignment, None, f"the evaluator died {attempt} times:\n{traceback.format_exc()}", attempt
                )
            self._waiting.appendleft((assignment, split, attempt + 1))
            return None
        except RayTaskError as error:
            return Verdict(assignment, None, str(error), attempt - 1)
