"""Our searcher and scheduler as Tune sees them: two thin ends of the desk."""

from __future__ import annotations

from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.desk import Desk
from orchestrator.cluster.silence import Silence
from orchestrator.cluster.trainable import Report
from orchestrator.plan import Plan

NO_EVALUATOR = 20.0  # seconds without an evaluator after which Tune must let go of the workers that it keeps


class DeskSearcher(Searcher):
    """Tune asks it for trials and tells it when they end. Ids are ours; Tune's random ones are mapped to plans."""

    def __init__(self, desk: Desk, plans: dict[str, Plan]) -> None:
        super().__init__()
        self._desk, self._plans = desk, plans

    def suggest(self, trial_id: str) -> Any:
        """The settings of the next trial, None for "later", FINISHED for "no more"."""
        with self._desk.keeping_trouble():
            while self._desk.must_wait:
                self._desk.poll(timeout=0.2)
                if self._plans:
                    return None  # others are being trained, and want to be heard
                if self._desk.pool.seconds_without_any > NO_EVALUATOR:
                    return Searcher.FINISHED  # of this `fit`: an idle worker may sit where an evaluator could
            plan = self._desk.next_trial()
            if plan is None:  # others under way may bring more
                return None if self._plans and not self._desk.is_over else Searcher.FINISHED
            self._plans[trial_id] = plan
            return self._desk.orders(plan).to_config()

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        with self._desk.keeping_trouble():
            is_told = not error and result is not None
            self._desk.ended(self._plans.pop(trial_id), Report.of(result) if is_told else None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the record."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())  # Tune pickles it for snapshots that we do not use, and the desk cannot be pickled


class DeskScheduler(FIFOScheduler):
    """Stops the trials that the sweep does not let go on, and gives workers that become free to the newest trial."""

    def __init__(self, desk: Desk, plans: dict[str, Plan]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._desk, self._plans = desk, plans

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        with self._desk.keeping_trouble():
            reached = Report.of(result).reached
            goes_on = reached is None or self._desk.reached(self._plans[trial.trial_id], reached)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The newest that waits. Older ones wait for workers that are starting: given one that is free, Tune would end
        those, and where trials are shorter than a start most slots would never be up."""
        waiting = [trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING]
        return waiting[-1] if waiting else None

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())


class DeskCallback(Callback):
    """Between Tune's steps: takes in evaluations, and ends workers that were silent for `time_limit` seconds."""

    def __init__(self, desk: Desk, plans: dict[str, Plan], time_limit: float) -> None:
        self._desk, self._plans, self._time_limit = desk, plans, time_limit
        self._silence: Silence[str] = Silence(time_limit)
        self._trials: dict[str, Trial] = {}  # those in training

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        with self._desk.keeping_trouble():
            self._desk.poll()
            self._desk.nodes.look_if_due()
        for name in self._silence.overdue():
            trial = self._trials[name]
            actor = trial.temporary_state.ray_actor
            if trial.status == Trial.RUNNING and actor is not None:
                self._forget(trial)
                with self._desk.keeping_trouble():
                    self._desk.silent(self._plans[name], self._time_limit)
                ray.kill(actor)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._trials[trial.trial_id] = trial
        self._silence.heard(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._forget(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A worker died and Tune will start the trial again: the next one must know what was recorded since."""
        self._forget(trial)
        with self._desk.keeping_trouble():
            plan = self._plans[trial.trial_id]
            if self._desk.nodes.has_lost_one():
                self._desk.lost(plan)
            else:
                self._desk.died(plan)
            trial.config.update(self._desk.orders(plan).to_config())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._silence.heard(trial.trial_id)

    def _forget(self, trial: Trial) -> None:
        self._trials.pop(trial.trial_id, None)
        self._silence.forget(trial.trial_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())
