"""Optuna's samplers by name, made for one suggestion."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler

from orchestrator.sampler_limits import KINDS, POPULATION
from orchestrator.tpe import SpaceTPE

GENERATION_OF = {  # what trials of their populations are marked by
    "nsga2": NSGAIISampler._get_generation_key(),
    "nsga3": NSGAIIISampler._get_generation_key(),
}
STARTUP = 10  # trials that a Gaussian process is fitted to at least


def make_sampler(name: str, seed: int, always: Mapping[str, BaseDistribution]) -> BaseSampler:
    """The sampler for one suggestion; `always` are the holes that hold whatever is chosen elsewhere.

    Raises ValueError for a name that is none.
    """
    if name in ("random", "qmc", "grid", "cmaes"):  # the points of the last three are given; they draw what is left
        return RandomSampler(seed=seed)
    if name == "tpe":
        return SpaceTPE(always, seed)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=POPULATION)
    if name == "nsga3":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # its interface may change; pyproject.toml has a bound
            return NSGAIIISampler(seed=seed, population_size=POPULATION)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=STARTUP)
    raise ValueError(f"search.sampler: must be one of {', '.join(KINDS)}, got {name!r}")
