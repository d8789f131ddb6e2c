"""The search in one cell of the matrix: an Optuna study that is rebuilt from what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.evolution import EvolvingPoints, numbers_of
from orchestrator.gridpoints import GridPoints
from orchestrator.lowdiscrepancy import SobolPoints
from orchestrator.points import Points
from orchestrator.sampler_limits import KINDS
from orchestrator.samplers import GENERATION_OF, make_sampler
from orchestrator.seeds import seed_of
from orchestrator.space import Configuration, Space
from orchestrator.window import WHOLE, Window, WindowedStudy

optuna.logging.set_verbosity(optuna.logging.WARNING)

GRID = "grid"  # the kind of a hole whose values are all tried, in turn, whatever the sampler
OF_STUDY = "study:"  # before the name of what a sampler noted on the study while it asked


@dataclass(frozen=True)
class Asked:
    """One suggestion as it is recorded: enough to put it back into a study of another process."""

    number: int
    params: dict[str, Any]  # in the sampler's own coordinates
    distributions: dict[str, str]  # JSON, by path
    sampler_attrs: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a suggestion ended. `values` are the objectives (None unless completed).

    `rungs` holds the first objective by epoch. A constraint holds when its value is at most 0.
    """

    status: str  # completed, pruned, failed
    values: tuple[float, ...] | None = None
    rungs: Mapping[int, float] | None = None
    constraints: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Past:
    """What a search may learn from before its first suggestion; `params` are in the sampler's own coordinates."""

    params: dict[str, Any]
    outcome: Outcome


class Study:
    """Asks and tells over one `Space`. The values of `grid` holes are gone through in turn, every combination of them.

    `past` are trials of other runs that come before the first suggestion: it goes on from them as if they were its own.

    The sampler is made anew for each ask from (seed, number), so a study that was rebuilt suggests what the
    undisturbed one would have. `directions` are "maximize" or "minimize", one per objective.
    """

    def __init__(
        self,
        space: Space,
        sampler: str,
        directions: Sequence[str],
        seed: int,
        fixed: Sequence[Mapping[str, Any]] = (),
        window: Window = Window(),  # noqa: B008 - frozen
        past: Sequence[Past] = (),
    ) -> None:
        self.space, self.sampler, self.seed, self.fixed = space, sampler, seed, list(fixed)
        turns = [optuna.study.StudyDirection[direction.upper()] for direction in directions]
        self._study = WindowedStudy(turns, window if KINDS[sampler].is_windowed else WHOLE)
        self._shift = 0  # how many trials of the past come before the first suggestion
        if KINDS[sampler].learns_from_others:
            for trial in past:
                self._learn(trial)
        self._points = self._make_points()
        self._always = {path: hole.distribution() for path, hole in space.holes().items() if not hole.conditions}
        self._asks = 0

    @property
    def asks(self) -> int:
        """How many suggestions there have been, repeats included; the number of the next one."""
        return self._asks

    def ask(self) -> tuple[Asked, Configuration]:
        """The next suggestion; the first ones are those given as `fixed`."""
        number = self.asks
        noted = self._study.noted()
        self._study.sampler = make_sampler(self.sampler, seed_of(self.seed, self._shift + number), self._always)
        if given := self._given(number):
            self._study.enqueue_trial(given)
        with self._study.looking_back():
            trial = self._study.ask()
            configuration = self.space.configure(
                lambda path, hole: hole.value(_suggest(trial, path, hole.distribution()))
            )
        self._asks += 1
        frozen = self._study.note(self._shift + number)
        distributions = {path: distribution_to_json(kind) for path, kind in frozen.distributions.items()}
        attrs = {key: value for key, value in frozen.system_attrs.items() if key != "fixed_params"}
        attrs |= {OF_STUDY + key: value for key, value in self._study.noted().items() if key not in noted}
        attrs |= self._points.attrs(self._place(number)) if self._points and self._place(number) >= 0 else {}
        return Asked(number, dict(frozen.params), distributions, attrs), configuration

    def tell(self, number: int, outcome: Outcome) -> None:
        """Say how a suggestion ended. Saying it twice is an error of ours (RuntimeError from Optuna)."""
        trial = optuna.trial.Trial(self._study, self._study.trial(self._shift + number)._trial_id)
        for key, value in (outcome.constraints or {}).items():
            trial.set_constraint(key, value)
        if outcome.status == "completed":
            self._study.tell(trial, list(outcome.values or ()))
        elif outcome.status == "pruned":
            for epoch, value in self._reported(outcome).items():
                trial.report(value, epoch)
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)
        self._hear(self._study.note(self._shift + number))

    def rebuild(self, asked: Asked, outcome: Outcome | None) -> None:
        """Put back a recorded suggestion, in order of number; without an outcome it is still running."""
        attrs = asked.sampler_attrs
        for key in attrs:
            if key.startswith(OF_STUDY):
                self._study.set_noted(key.removeprefix(OF_STUDY), attrs[key])
        own = {key: value for key, value in attrs.items() if not key.startswith(OF_STUDY)}
        distributions = {path: _distribution(text) for path, text in asked.distributions.items()}
        self._add(asked.params, distributions, own, outcome)
        number, self._asks = self._asks, self._asks + 1
        if self._points and self._place(number) >= 0:
            self._points.restore(self._place(number), attrs)
        self._hear(self._study.note(self._shift + number))

    def _learn(self, trial: Past) -> None:
        """Put a trial of the past before what is suggested; one of a population belongs to the first generation."""
        holes = self.space.holes()
        distributions = {path: holes[path].distribution() for path in trial.params}
        self._add(
            trial.params,
            distributions,
            {GENERATION_OF[self.sampler]: 0} if self.sampler in GENERATION_OF else {},
            trial.outcome,
        )
        self._study.note(self._shift)
        self._shift += 1

    def _add(
        self,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        attrs: dict[str, Any],
        outcome: Outcome | None,
    ) -> None:
        states = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        reported = self._reported(outcome) if outcome and outcome.status == "pruned" else {}
        is_complete = outcome is not None and outcome.status == "completed"
        self._study.add_trial(
            create_trial(
                state=states[outcome.status] if outcome else TrialState.RUNNING,
                values=list(outcome.values or ()) if outcome and is_complete else list(reported.values())[-1:] or None,
                params=params,
                distributions=distributions,
                system_attrs=attrs,
                intermediate_values=dict(reported),
                constraints=dict(outcome.constraints) if outcome and outcome.constraints else None,
            )
        )

    def _make_points(self) -> Points | None:
        holes = {path: hole.distribution() for path, hole in self.space.holes().items() if hole.kind != GRID}
        if self.sampler == "qmc":
            return SobolPoints(holes, self.seed)
        if self.sampler == "cmaes":
            return EvolvingPoints(numbers_of(holes), self.seed, self._best_of_the_past())
        return GridPoints(self.space) if self.sampler == GRID else None

    def _best_of_the_past(self) -> dict[str, Any]:
        trials = [trial for trial in map(self._study.trial, range(self._shift)) if trial.state == TrialState.COMPLETE]
        return dict(min(trials, key=self._study.worth).params) if trials else {}

    def _place(self, number: int) -> int:
        """Among the suggestions that are not given; negative for one that is."""
        return number - len(self.fixed)

    def _hear(self, trial: FrozenTrial) -> None:
        """Let the points know of a suggestion that has ended."""
        place = self._place(trial.number - self._shift)
        if self._points and trial.state != TrialState.RUNNING and place >= 0:
            self._points.ended(place, self._study.worth(trial))

    def _given(self, number: int) -> dict[str, Any]:
        """What the sampler does not choose: settings to be tried first, then the next point of the `grid` holes."""
        if number < len(self.fixed):
            return dict(self.fixed[number])
        place = self._place(number)
        given = self._points.point(place) if self._points else {}
        for path, hole in self.space.holes().items():
            if hole.kind == GRID and self.sampler != GRID:
                values = hole.values()
                place, turn = divmod(place, len(values))
                given[path] = hole.internal(values[turn])
        return given

    def _reported(self, outcome: Outcome) -> Mapping[int, float]:
        """Rung figures as Optuna may hear them: with several objectives its TPE raises on them."""
        return (outcome.rungs or {}) if len(self._study.directions) == 1 else {}


@lru_cache(maxsize=1024)  # a study has few of them, and thousands of suggestions with each
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _suggest(trial: optuna.Trial, path: str, kind: BaseDistribution) -> Any:
    if isinstance(kind, FloatDistribution):
        return trial.suggest_float(path, kind.low, kind.high, step=kind.step, log=kind.log)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(path, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, CategoricalDistribution)
    return trial.suggest_categorical(path, kind.choices)
