"""Our searcher and scheduler as Tune sees them: two thin ends of the desk."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.desk import Desk
from orchestrator.cluster.trainable import Report
from orchestrator.plan import Plan

NODE_MOMENTS = 30.0  # seconds after the loss of a node in which workers may die of it


class DeskSearcher(Searcher):
    """Tune asks it for trials and tells it when they end. Ids are ours; Tune's random ones are mapped to plans."""

    def __init__(self, desk: Desk, plans: dict[str, Plan]) -> None:
        super().__init__()
        self._desk, self._plans = desk, plans

    def suggest(self, trial_id: str) -> Any:
        """The settings of the next trial, None for "later", FINISHED for "no more"."""
        while self._desk.must_wait:
            self._desk.poll(timeout=0.2)
            if self._plans:
                return None  # others are being trained, and want to be heard
        plan = self._desk.next_trial()
        if plan is None:
            return Searcher.FINISHED
        self._plans[trial_id] = plan
        return self._desk.orders(plan).to_config()

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        is_told = not error and result is not None
        self._desk.ended(self._plans.pop(trial_id), Report.of(result) if is_told else None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the record."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())  # Tune pickles it for snapshots that we do not use, and the desk cannot be pickled


class DeskScheduler(FIFOScheduler):
    """Stops the trials that the sweep does not let go on."""

    def __init__(self, desk: Desk, plans: dict[str, Plan]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._desk, self._plans = desk, plans

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        reached = Report.of(result).reached
        goes_on = reached is None or self._desk.reached(self._plans[trial.trial_id], reached)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())


class DeskCallback(Callback):
    """Between Tune's steps: takes in evaluations, and ends workers that were silent for `time_limit` seconds."""

    def __init__(self, desk: Desk, plans: dict[str, Plan], time_limit: float) -> None:
        self._desk, self._plans, self._time_limit = desk, plans, time_limit
        self._dead_nodes: set[str] = set()
        self._lost_at = float("-inf")
        self._heard: dict[str, tuple[Trial, float]] = {}  # the trials in training, each with its last sign of life

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self._desk.poll()
        now = time.monotonic()
        for trial, since in list(self._heard.values()):
            actor = trial.temporary_state.ray_actor
            if trial.status == Trial.RUNNING and actor is not None and now - since > self._time_limit:
                del self._heard[trial.trial_id]
                self._desk.silent(self._plans[trial.trial_id], self._time_limit)
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._heard[trial.trial_id] = (trial, time.monotonic())

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._heard.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._heard.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A worker died and Tune will start the trial again: the next one must know what was recorded since."""
        plan = self._plans[trial.trial_id]
        self._heard.pop(trial.trial_id, None)
        if self._has_lost_a_node():
            self._desk.lost(plan)
        else:
            self._desk.died(plan)
        trial.config.update(self._desk.orders(plan).to_config())

    def _has_lost_a_node(self) -> bool:
        """Whether a node died in the last moments: Ray does not say of a worker whether its node went with it."""
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        dead = {node["NodeID"] for node in nodes if not node["Alive"]}
        if dead - self._dead_nodes:
            self._dead_nodes, self._lost_at = dead, time.monotonic()
        return time.monotonic() - self._lost_at < NODE_MOMENTS

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._heard[trial.trial_id] = (trial, time.monotonic())

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())
