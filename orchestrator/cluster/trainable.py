"""The worker in which Tune trains: a shell round a trainer, kept alive from one trial to the next."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from orchestrator.plan import Plan
from orchestrator.rungs import Reached
from orchestrator.storage.patience import StoreLost
from orchestrator.told import told_from_json, told_to_json
from orchestrator.work import Trains, Work

HANGS = 2  # how often a trial's worker may be ended for its silence before the trial has failed
DEATHS = 3  # how often it may die, its node living on, before the trial has failed


class TrialHung(RuntimeError):
    """A trial whose worker was ended for its silence as often as is allowed."""


class TrialDied(RuntimeError):
    """A trial whose workers died more often than is allowed."""


@dataclass(frozen=True)
class Bench:
    """What every training worker of a sweep gets once. `data` are object references to TrainingData, by cell."""

    work: Work
    data: dict[str, Any]


@dataclass(frozen=True)
class Orders:
    """What a worker is told of a trial: its plan, what the store has of it, how often workers hung and died with it."""

    plan: Plan
    told: str = "[]"
    hangs: int = 0
    deaths: int = 0

    def to_config(self) -> dict[str, Any]:
        counts = {"hangs": self.hangs, "deaths": self.deaths}
        return {"id": self.plan.trial_id, "plan": self.plan.to_json(), "told": self.told, **counts}

    @classmethod
    def of(cls, config: dict[str, Any]) -> Orders:
        return cls(Plan.from_json(config["plan"]), config["told"], config["hangs"], config["deaths"])


@dataclass(frozen=True)
class Report:
    """What a step found: the rung it reached and the facts so far, or the traceback of what went wrong.

    `is_store_lost`: what went wrong says nothing about the trial.
    """

    reached: Reached | None
    facts: dict[str, Any]
    error: str | None
    is_store_lost: bool = False

    def to_result(self) -> dict[str, Any]:
        """As a result of Tune, which flattens mappings and joins their keys: so the report goes as one text."""
        reached = None if self.reached is None else {**vars(self.reached), "told": told_to_json(self.reached.told)}
        text = json.dumps({**vars(self), "reached": reached})
        return {"report": text, "done": self.reached is None or self.reached.is_top}

    @classmethod
    def of(cls, result: dict[str, Any]) -> Report:
        said = json.loads(result["report"])
        reached = said["reached"]
        if reached is not None:
            reached = Reached(**{**reached, "told": told_from_json(reached["told"])})
        return cls(**{**said, "reached": reached})


class TrialActor(tune.Trainable):
    """One `step` goes to the next rung. What fails is told as a result: Tune's retries are for workers that die."""

    def setup(self, config: dict[str, Any], bench: Bench | None = None) -> None:
        assert bench is not None
        self._bench = bench
        self._trainer: Trains | None = None
        self._cannot_work: str | None = None  # why not: what is raised here Tune would try again without a word
        try:
            bench.work.load_modules()
        except Exception:
            self._cannot_work = traceback.format_exc()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trainer = None
        return True

    def step(self) -> dict[str, Any]:
        if self._cannot_work is not None:
            return Report(None, {}, self._cannot_work).to_result()
        try:
            self._trainer = self._trainer or self._begin()
            reached = self._trainer.advance()
            return Report(reached, self._trainer.facts(), None).to_result()
        except StoreLost as error:
            return Report(None, {}, str(error), is_store_lost=True).to_result()
        except Exception:
            return Report(None, {}, traceback.format_exc()).to_result()

    def _begin(self) -> Trains:
        orders = Orders.of(self.config)
        if orders.hangs >= HANGS:
            raise TrialHung(f"no report in the time it has, {orders.hangs} times")
        if orders.deaths > DEATHS:
            raise TrialDied(f"its worker died more than {DEATHS} times")
        reference = self._bench.data[orders.plan.cell]
        told = told_from_json(orders.told)
        return self._bench.work.trainer(orders.plan, told, lambda: ray.get(reference), bool(ray.get_gpu_ids()))
