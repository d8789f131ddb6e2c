"""Work that hurts the worker which does it: how tests make workers die and hang."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.measurement import Assignment, Found
from orchestrator.plan import Plan
from orchestrator.rungs import Reached
from orchestrator.told import Told
from orchestrator.work import Evaluates, Trains, Work


@dataclass(frozen=True)
class FaultyWork:
    """When a `victim` ("trainer" or "evaluator") has done its work and not told of it: `fault` is "exit" or "hang".

    `times` bounds how often it strikes, over all processes: each strike leaves a hidden file in `root`.
    """

    inner: Work
    root: Path
    victim: str = "trainer"
    fault: str = "exit"
    times: int = 1

    def load_modules(self) -> None:
        self.inner.load_modules()

    def trainer(self, plan: Plan, told: Told, load: Callable[[], Any], has_gpu: bool) -> Trains:
        return FaultyTrainer(self.inner.trainer(plan, told, load, has_gpu), self)

    def evaluator(self, has_gpu: bool) -> Evaluates:
        return FaultyEvaluator(self.inner.evaluator(has_gpu), self)

    def strike(self, victim: str) -> None:
        strikes = len(list(self.root.glob(".strike-*")))
        if victim != self.victim or strikes >= self.times:
            return
        (self.root / f".strike-{strikes}").touch()
        if self.fault == "exit":
            os._exit(1)
        time.sleep(600)


@dataclass(frozen=True)
class FaultyTrainer:
    inner: Trains
    work: FaultyWork

    def advance(self) -> Reached:
        reached = self.inner.advance()
        self.work.strike("trainer")
        return reached

    def facts(self) -> dict[str, Any]:
        return self.inner.facts()


@dataclass(frozen=True)
class FaultyEvaluator:
    inner: Evaluates
    work: FaultyWork

    def evaluate(self, assignment: Assignment, split: Any) -> Found:
        found = self.inner.evaluate(assignment, split)
        self.work.strike("evaluator")
        return found
