"""Optuna's TPE, told which holes always hold instead of looking for them in every past trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe import sampler as optuna_tpe
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class SpaceTPE(TPESampler):
    """TPE over a known space: `always` are the holes without a condition, by path, which it draws jointly.

    Holes that hold only sometimes are drawn one by one, and with several objectives all are, as Optuna does: drawn
    jointly, two objectives end up far worse (benchmarks/suggestions.py). Good and bad trials are told apart once per
    suggestion, not once per hole. For one suggestion: make another for the next.
    """

    def __init__(self, always: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed)
        self._divided: tuple[list[FrozenTrial], list[FrozenTrial]] | None = None
        self._always = {path: always[path] for path in sorted(always) if not always[path].single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._always) if len(study.directions) == 1 else {}

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        good, bad = self._divided = self._divided or self._divide(study, trial)
        likely = self._build_parzen_estimator(study, search_space, good, handle_below=True)
        unlikely = self._build_parzen_estimator(study, search_space, bad, handle_below=False)
        drawn = likely.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(drawn, self._compute_acquisition_func(drawn, likely, unlikely))
        return {path: kind.to_external_repr(best[path]) for path, kind in search_space.items()}

    def _divide(self, study: Study, trial: FrozenTrial) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Good and bad trials; what is under way counts as bad."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        others = [other for other in study._get_trials(deepcopy=False, states=states) if other.number != trial.number]
        ended = sum(other.state != TrialState.RUNNING for other in others)
        several = len(study.directions) > 1
        share = optuna_tpe.default_gamma_multiobjective if several else optuna_tpe.default_gamma
        return optuna_tpe._split_trials(study, others, share(ended))
