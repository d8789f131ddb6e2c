"""What a sampler looks back on: of very many suggestions the best and the newest, so that asking stays quick."""

from __future__ import annotations

import copy
import math
import uuid
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.standing import Standing


@dataclass(frozen=True)
class Window:
    """How many finished suggestions are shown: the `best`, and the `newest` by number.

    Optuna's TPE takes at most the 25 best for what is good in one objective, and a tenth of what it sees in
    several; the best shown here are more than that, so what is good is chosen from all, not from the newest.
    """

    best: int = 40
    newest: int = 120


WHOLE = Window(best=10**9, newest=10**9)


class WindowedStudy(optuna.Study):
    """An Optuna study that shows a sampler no more than a window of what finished, and all that is under way.

    Which trials these are depends on the numbers and outcomes alone, not on the order in which they finished: a
    rebuilt study shows the same. Nothing is forgotten: outside `looking_back` all trials are there.
    """

    def __init__(self, directions: Sequence[StudyDirection], window: Window) -> None:
        storage = InMemoryStorage()
        name = str(uuid.uuid4())
        storage.create_new_study(directions, name)
        super().__init__(name, storage, RandomSampler(seed=0))
        self._window = window
        self._signs = [-1.0 if turn == StudyDirection.MAXIMIZE else 1.0 for turn in directions]
        self._standing = Standing(window.best, len(directions))
        self._finished: list[int] = []  # completed or pruned; in order, but for the last ones
        self._running: set[int] = set()
        self._shown: list[int] | None = None

    def trial(self, number: int) -> FrozenTrial:
        """The trial as it is now; it must not be changed."""
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number))

    def note(self, number: int) -> FrozenTrial:
        """Take notice of a trial that was asked for or has ended, and give it."""
        trial = self.trial(number)
        if trial.state == TrialState.RUNNING:
            self._running.add(number)
        else:
            self._running.discard(number)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            self._finished.append(number)
            self._standing.add(number, *self._tier_and_losses(trial))
        return trial

    def worth(self, trial: FrozenTrial) -> tuple[float, ...]:
        """How good a trial that has ended was, the smaller the better; one that failed is the worst."""
        if trial.state == TrialState.FAIL:
            return (math.inf,)
        tier, losses = self._tier_and_losses(trial)
        return (tier, *losses)

    def noted(self) -> dict[str, Any]:
        """What samplers noted on the study as a whole."""
        return dict(self._storage.get_study_system_attrs(self._study_id))

    def set_noted(self, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(self._study_id, key, value)

    @contextmanager
    def looking_back(self) -> Iterator[None]:
        """While this lasts, only the window is to be seen."""
        self._finished.sort()  # nearly sorted: what Python's sort is linear for
        newest = self._finished[-self._window.newest :]
        self._shown = sorted({*newest, *self._standing.best(), *self._running})
        try:
            yield
        finally:
            self._shown = None

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        if self._shown is None:
            return super()._get_trials(deepcopy, states, use_cache)
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        found = [trials[number] for number in self._shown if states is None or trials[number].state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _tier_and_losses(self, trial: FrozenTrial) -> tuple[float, list[float]]:
        """The tier and the losses by which Optuna's TPE tells good from bad: whatever was completed within the
        constraints, then what was pruned, the later the better, then the least violation."""
        violation = sum(value for value in trial.constraints.values() if value > 0)
        if violation:
            return 2 + (violation / (1 + violation) if math.isfinite(violation) else 1.0), [0.0] * len(self._signs)
        if trial.state == TrialState.COMPLETE:
            return 0.0, [sign * value for sign, value in zip(self._signs, trial.values, strict=True)]
        if not trial.intermediate_values:
            return 1.5, [0.0] * len(self._signs)
        step, value = max(trial.intermediate_values.items())
        return 1 + 1 / (3 + step), [math.inf if math.isnan(value) else self._signs[0] * value]
