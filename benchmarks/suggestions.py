"""How long a suggestion takes as a sweep grows, and whether a sampler that sees a window of it searches as well.

python benchmarks/suggestions.py            # milliseconds per ask and tell at 100, 1,000, 10,000 trials; rebuild
python benchmarks/suggestions.py --quality  # the best found by windowed and by whole TPE, over 10 seeds
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np

from orchestrator.search import Asked, Outcome, Study
from orchestrator.space import Configuration, Space
from orchestrator.spec import load_spec
from orchestrator.window import WHOLE, Window

SIZES = (100, 1_000, 10_000)
SAMPLERS = ("random", "qmc", "tpe")
OBJECTIVES = {1: ("maximize",), 2: ("maximize", "maximize")}
TIMED = 50  # suggestions timed at each size
SPEC: dict[str, Any] = {
    "name": "suggestions",
    "dataset": "digits",
    "threat": {"norm": "linf", "eps": 0.1},
    "defense": {"name": "pgd_at", "steps": {"int": [1, 10]}, "clean_weight": {"uniform": [0, 0.9]}},
    "network": {
        "choice": [
            {"name": "lenet"},
            {"name": "resnet", "depth": {"choice": [8, 14, 20]}, "width": {"log_int": [4, 32]}},
        ]
    },
    "training": {
        "epochs": 9,
        "lr": {"log_uniform": [0.003, 0.3]},
        "momentum": {"uniform": [0.5, 0.95]},
        "weight_decay": {"log_uniform": [1e-6, 1e-2]},
        "optimizer": {"choice": ["sgd", "adam"]},
        "schedule": {"choice": ["cosine", "constant"]},
    },
}  # ten holes, eight of them at a time in a lenet


def space() -> Space:
    (cell,) = load_spec(SPEC).cells()
    return cell.space


def figures(found: Configuration, noise: float = 0.0) -> tuple[float, float]:
    """Two made-up objectives with an interaction, a condition and a trade-off; the first is at most 1."""
    training, defense, network = found.training, found.defense, found.network
    rate, decay = math.log10(training["lr"]) + 1.2, math.log10(training["weight_decay"]) + 3.5
    depth = 0.15 * (network.get("depth") == 14) + 0.02 * math.log2(network.get("width", 4)) + 0.04
    first = 0.8 - 0.3 * (rate + 0.3 * decay) ** 2 - 0.05 * decay**2 - 0.4 * (training["momentum"] - 0.8) ** 2
    first += depth - 0.3 * (defense["clean_weight"] - 0.3) ** 2 - 0.004 * (defense["steps"] - 7) ** 2
    first -= 0.05 * (training["optimizer"] == "adam") + 0.03 * (training["schedule"] == "constant")
    second = 0.9 - 0.02 * defense["steps"] + 0.1 * defense["clean_weight"] - 0.1 * rate**2
    return first + noise, second - noise / 2


def outcome(number: int, found: Configuration, objectives: int, rng: np.random.Generator) -> Outcome:
    """As under successive halving: two of three are pruned, one of fifty fails."""
    values = figures(found, 0.02 * rng.standard_normal())[:objectives]
    constraints = {"degenerate": float(values[0] < -1)}
    if number % 50 == 7:
        return Outcome("failed")
    if number % 3:
        return Outcome("pruned", None, {2: values[0] - 0.1}, constraints)
    return Outcome("completed", values, None, constraints)


def history(count: int, objectives: int) -> list[tuple[Asked, Outcome]]:
    """What random search would have recorded."""
    study, rng = Study(space(), "random", OBJECTIVES[objectives], seed=1), np.random.default_rng(1)
    past = []
    for number in range(count):
        asked, found = study.ask()
        past.append((asked, outcome(number, found, objectives, rng)))
        study.tell(*(number, past[-1][1]))
    return past


def measure_times() -> None:
    print("sampler  objectives  trials  rebuild s   ask ms  tell ms  worst ask ms")
    for objectives, directions in OBJECTIVES.items():
        past = history(max(SIZES), objectives)
        for sampler in SAMPLERS:
            for size in SIZES:
                study, rng = Study(space(), sampler, directions, seed=2), np.random.default_rng(2)
                start = time.perf_counter()
                for asked, known in past[:size]:
                    study.rebuild(asked, known)
                rebuilt = time.perf_counter() - start
                asking, telling = [], []
                for _ in range(TIMED):
                    start = time.perf_counter()
                    asked, found = study.ask()
                    middle = time.perf_counter()
                    known = outcome(asked.number, found, objectives, rng)
                    again = time.perf_counter()
                    study.tell(asked.number, known)
                    asking.append(1e3 * (middle - start))
                    telling.append(1e3 * (time.perf_counter() - again))
                middle_ask, middle_tell = np.median(asking), np.median(telling)
                print(
                    f"{sampler:8} {objectives:9} {size:7} {rebuilt:10.2f} {middle_ask:8.2f} {middle_tell:8.2f} "
                    f"{max(asking):13.2f}",
                    flush=True,
                )


def searched(window: Window, objectives: int, trials: int, seed: int) -> np.ndarray:
    """The true figures of every suggestion. [trials, objectives]"""
    study, rng = Study(space(), "tpe", OBJECTIVES[objectives], seed, window=window), np.random.default_rng(seed)
    found = []
    for number in range(trials):
        asked, configuration = study.ask()
        study.tell(asked.number, outcome(number, configuration, objectives, rng))
        found.append(figures(configuration)[:objectives])
    return np.array(found)


def gain(found: np.ndarray) -> float:
    """The best of one objective; the area dominated above (-1, 0) by two."""
    if found.shape[1] == 1:
        return float(found.max())
    front = found[np.argsort(-found[:, 0], kind="stable")]
    area, reached = 0.0, 0.0
    for first, second in front:
        if second > reached and first > -1:
            area, reached = area + (first + 1) * (second - reached), second
    return area


def measure_quality(trials: int, seeds: int) -> None:
    for objectives in OBJECTIVES:
        what = "best value" if objectives == 1 else "dominated area"
        results = {
            name: [gain(searched(window, objectives, trials, seed)) for seed in range(seeds)]
            for name, window in (("window", Window()), ("whole", WHOLE))
        }
        print(f"{what} after {trials} trials, {seeds} seeds, {objectives} objectives")
        for name, values in results.items():
            print(f"  {name:8} mean {np.mean(values):.4f}  sd {np.std(values, ddof=1):.4f}  {np.round(values, 3)}")
        difference = np.subtract(results["window"], results["whole"])
        error = np.std(difference, ddof=1) / math.sqrt(seeds)
        print(
            f"  window - whole: {np.mean(difference):+.4f} +- {error:.4f} (standard error over the seeds)", flush=True
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    if given.quality:
        measure_quality(given.trials, given.seeds)
    else:
        measure_times()
