"""Optuna's TPE, told which holes always hold instead of looking for them in every past trial."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class SpaceTPE(TPESampler):
    """TPE over a known space: `always` are the holes without a condition, by path, which it draws jointly.

    Holes that hold only sometimes are drawn one by one, and with several objectives all are, as Optuna does.
    """

    def __init__(self, always: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed=seed)
        self._always = {path: always[path] for path in sorted(always) if not always[path].single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._always) if len(study.directions) == 1 else {}
