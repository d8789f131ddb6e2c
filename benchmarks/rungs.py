"""What stopping trials early buys with two objectives: hypervolume for equal budgets, against a known front.

    python benchmarks/rungs.py            # 20 seeds, random search and TPE, about five minutes on one core

Trials are points of ZDT1 (Zitzler, Deb, Thiele 2000): five numbers in [0, 1], two losses, of which the best trade-off
is f2 = 1 - sqrt(f1). Both losses begin too high and come down with the epochs, each trial at its own speed, and are
seen with noise; the budget is in epochs. With rungs, trials are stopped by the orchestrator's successive halving;
without, each is trained to the end. What counts is the true figures of the trials that reached the end.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna._hypervolume import compute_hypervolume

from orchestrator.asha import SuccessiveHalving
from orchestrator.rungs import rungs
from orchestrator.search import Outcome, Study
from orchestrator.space import Configuration
from orchestrator.spec import load_spec

EPOCHS, GRACE, FACTOR = 27, 1, 3.0
FRONT = 2 / 3  # the area between the best trade-off and (1, 1)
SPEC: dict[str, Any] = {
    "name": "rungs",
    "dataset": "digits",
    "threat": {"norm": "linf", "eps": 0.1},
    "defense": {"name": "pgd_at", "clean_weight": {"uniform": [0.0, 0.999]}},
    "network": "lenet",
    "training": {
        "lr": {"uniform": [0.001, 1.0]},
        "momentum": {"uniform": [0.0, 0.999]},
        "weight_decay": {"uniform": [0.0, 1.0]},
        "ema": {"uniform": [0.0, 0.999]},
    },
}


@dataclass(frozen=True)
class Curve:
    """The two losses of a trial: where they end, and how they come down."""

    final: tuple[float, float]
    speed: float

    def at(self, epoch: int, rng: np.random.Generator) -> tuple[float, float]:
        """As they are measured after so many epochs."""
        still = math.exp(-self.speed * epoch)
        noise = 0.02 * rng.standard_normal(2)
        return tuple(float(end + still + each) for end, each in zip(self.final, noise, strict=True))  # type: ignore[return-value]


def curve(found: Configuration, rng: np.random.Generator) -> Curve:
    settings = [*(found.training[name] for name in ("lr", "momentum", "weight_decay", "ema"))]
    settings.append(found.defense["clean_weight"])
    first, rest = settings[0], settings[1:]
    spread = 1 + 2 * sum(rest) / len(rest)  # ZDT1 has 9 for 2, with which hardly a random point beats (1, 1)
    return Curve((first, spread * (1 - math.sqrt(first / spread))), float(rng.uniform(0.15, 0.6)))


def area(sampler: str, budget: int, seed: int, has_rungs: bool) -> float:
    """The share of the known front's area that one search reaches with so many epochs."""
    (cell,) = load_spec(SPEC).cells()
    study = Study(cell.space, sampler, ["minimize", "minimize"], seed)
    rng, halving, best = np.random.default_rng(seed), SuccessiveHalving(FACTOR), list[tuple[float, float]]()
    stops = rungs(EPOCHS, GRACE, FACTOR) if has_rungs else [EPOCHS]
    spent = 0
    while spent < budget:
        asked, found = study.ask()
        drawn, before, outcome = curve(found, rng), 0, None
        for epoch in stops:
            spent, before = spent + epoch - before, epoch
            seen = drawn.at(epoch, rng)
            halving.record("all", epoch, str(asked.number), [-loss for loss in seen])
            if epoch < EPOCHS and not halving.goes_on("all", epoch, str(asked.number)):
                outcome = Outcome("pruned", None, {})
                break
        else:
            outcome = Outcome("completed", seen)
            if spent <= budget:
                best.append(drawn.final)
        study.tell(asked.number, outcome)
    inside = np.array([losses for losses in best if max(losses) < 1]).reshape(-1, 2)
    return float(compute_hypervolume(inside, np.array([1.0, 1.0]))) / FRONT if len(inside) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--budget", type=int, default=60 * EPOCHS, help="in epochs")
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    print(f"share of the front's area after {given.budget} epochs, {given.seeds} seeds")
    for sampler in given.samplers:
        found = {
            has_rungs: np.array([area(sampler, given.budget, seed, has_rungs) for seed in range(given.seeds)])
            for has_rungs in (False, True)
        }
        gain = found[True] - found[False]
        print(
            f"{sampler}: to the end {found[False].mean():.3f}, with rungs {found[True].mean():.3f}: "
            f"{gain.mean():+.3f} +- {gain.std(ddof=1) / math.sqrt(given.seeds):.3f} (standard error), "
            f"better in {int((gain > 0).sum())} of {given.seeds}",
            flush=True,
        )


if __name__ == "__main__":
    main()
