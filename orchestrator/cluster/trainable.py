"""The worker in which Tune trains: a shell round `Trainer`, kept alive from one trial to the next."""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import ray
import torch
from ray import tune

from orchestrator.lifecycle import RETRY
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.training import Reached, RungRule, Trainer, TrainingData

HUNG = "no report in"  # how the evidence of a `retry` event begins when a worker was ended for its silence
HANGS = 2  # how often that may happen to a trial before it has failed


class TrialHung(RuntimeError):
    """A trial whose worker was ended for its silence as often as is allowed."""


@dataclass(frozen=True)
class Bench:
    """What every training worker of a sweep gets once. `data` and `rules` are by cell."""

    store: Store
    rules: dict[str, RungRule]
    data: dict[str, Any]  # object references to TrainingData
    threads: int


@dataclass(frozen=True)
class Report:
    """What a step found: the rung it reached and the facts so far, or the traceback of what went wrong."""

    reached: Reached | None
    facts: dict[str, Any]
    error: str | None

    @classmethod
    def of(cls, result: dict[str, Any]) -> Report:
        said = json.loads(result["report"])
        return cls(Reached(**said["reached"]) if said["reached"] else None, said["facts"], said["error"])


class TrialActor(tune.Trainable):
    """One `step` goes to the next rung. What fails is told as a result: Tune's retries are for workers that die."""

    def setup(self, config: dict[str, Any], bench: Bench | None = None) -> None:
        assert bench is not None
        torch.set_num_threads(bench.threads)
        self._bench = bench
        self._trainer: Trainer | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trainer = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return True

    def step(self) -> dict[str, Any]:
        try:
            self._trainer = self._trainer or self._begin()
            reached = self._trainer.advance()
            facts = self._trainer.facts()
        except Exception:
            return _told(Report(None, {}, traceback.format_exc()), done=True)
        return _told(Report(reached, facts, None), done=reached.is_top)

    def _begin(self) -> Trainer:
        plan = Plan.from_json(self.config["plan"])
        events = self._bench.store.read_trial("events", plan.trial_id)
        hangs = events[(events["kind"] == RETRY) & events["evidence"].str.startswith(HUNG)]
        if len(hangs) >= HANGS:
            raise TrialHung(f"{len(hangs)} times: {hangs['evidence'].iloc[-1]}")
        data: TrainingData = ray.get(self._bench.data[plan.cell])
        device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
        return Trainer(plan, self._bench.rules[plan.cell], data, self._bench.store, device)


def _told(report: Report, done: bool) -> dict[str, Any]:
    """The result of a step. Tune flattens mappings and joins their keys, so the report goes as one text."""
    return {"report": json.dumps(asdict(report)), "done": done}
