"""The sweeps of the campaign: small networks on generated images, with prunings, finalists and a test split."""

from __future__ import annotations

from typing import Any

SAMPLERS = ("tpe", "random", "grid", "qmc")


def spec(sampler: str, trials: int = 14, epochs: int = 9, concurrent: int = 1, seed: int = 0) -> dict[str, Any]:
    """A sweep. `grid` has grid holes, over which the sampler has no say; the others search a rate and a choice."""
    rate: dict[str, Any] = {"log_uniform": [0.002, 0.2]}
    weight: dict[str, Any] = {"choice": [0.0, 0.25, 0.5]}
    if sampler == "grid":
        rate, weight = {"grid": [0.004, 0.01, 0.025, 0.06, 0.15]}, {"grid": [0.0, 0.25, 0.5]}
    return {
        "name": f"kills-{sampler}-{concurrent}",
        "seed": seed,
        "dataset": {"name": "synthetic", "examples": 1200, "validation": 200, "noise": 0.3},
        "threat": {"norm": "linf", "eps": 0.05},
        "defense": {"name": "pgd_at", "steps": 3, "clean_weight": weight},
        "network": {"name": "mlp", "widths": [32]},
        "training": {"epochs": epochs, "batch_size": 32, "lr": rate},
        "search": {
            "sampler": "random" if sampler == "grid" else sampler,
            "trials": trials,
            "objectives": {"robust_area": "max"},
        },
        "scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2},
        "evaluation": {
            "rung": {"examples": 60, "attacks": [{"name": "pgd", "steps": 4}]},
            "final": {"examples": 100, "attacks": [{"name": "fgsm"}, {"name": "pgd", "steps": 10, "restarts": 2}]},
            "test": {"finalists": 2, "seeds": 2, "examples": 100, "attacks": [{"name": "pgd", "steps": 10}]},
        },
        "resources": {
            "max_concurrent": concurrent,
            "trial": {"cpus": 1},
            "evaluator": {"cpus": 1, "count": 1},
        },
    }
