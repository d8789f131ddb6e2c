"""TPE that is told its space draws what Optuna's own draws, only sooner."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler

from orchestrator.tpe import SpaceTPE

HOLES: dict[str, BaseDistribution] = {
    "depth": IntDistribution(2, 20, step=3),
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "momentum": FloatDistribution(0.5, 0.95),
    "optimizer": CategoricalDistribution(("sgd", "adam")),
}


def suggestions(sampler: BaseSampler, objectives: int) -> dict[str, object]:
    """What it asks for after forty known trials, with two more under way."""
    study = optuna.create_study(directions=["maximize"] * objectives, sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(42):
        trial = study.ask(HOLES)
        value = trial.params["lr"] + trial.params["depth"] / 20
        if number % 5 == 3 and objectives == 1:
            trial.report(value, 1)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif number < 40:
            study.tell(trial, [value, -trial.params["momentum"]][:objectives])
    study.sampler = sampler
    return dict(study.ask(HOLES).params)


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_it_asks_for_what_optuna_would_ask_for(objectives: int, seed: int) -> None:
    assert suggestions(SpaceTPE(HOLES, seed), objectives) == suggestions(TPESampler(seed=seed), objectives)
