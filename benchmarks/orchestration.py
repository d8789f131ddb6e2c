"""What a sweep costs beside bare Ray Tune, how it grows with trials and slots, and how far it overlaps its two works.

    python -m benchmarks.orchestration                      # all of it, about 25 minutes on 2 cores
    python -m benchmarks.orchestration overhead --trials 300
    python -m benchmarks.orchestration overlap
    python -m benchmarks.orchestration slots --slots 1 4 16 64

Every line is a ratio of two figures of this run. Trials do nothing and know no torch, so what is measured is Ray, Tune
and the orchestrator; both sides search at random and train on two slots; ours also evaluates every trial and syncs
every record. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPACE = {"lr": (0.01, 0.2), "weight_decay": (1e-5, 1e-2)}
SPEC: dict[str, Any] = {
    "name": "trivial",
    "dataset": {"name": "synthetic", "examples": 200, "validation": 60},
    "threat": {"norm": "linf", "eps": 0.05},
    "defense": {"name": "standard"},
    "network": {"name": "mlp", "widths": [4]},
    "training": {"epochs": 1, **{name: {"log_uniform": list(bounds)} for name, bounds in SPACE.items()}},
    "search": {"sampler": "random", "objectives": {"robust_area": "max"}},
    "scheduler": {"name": "none"},
    "evaluation": {"test": {"finalists": 0}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", "overhead", "overlap", "slots", "one"], default="all")
    parser.add_argument("--trials", type=int, nargs="+", default=[300, 3000, 10000])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--one", default="{}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "one":
        print(json.dumps(measure(**json.loads(given.one))))
        return
    for name, bench in (("overhead", overhead), ("overlap", overlap), ("slots", slots)):
        if given.what in ("all", name):
            bench(given)


def overhead(given: argparse.Namespace) -> None:
    """Milliseconds a trial, beside bare Tune at the same number of trials."""
    first = 0.0
    for trials in given.trials:
        bare, ours = (in_process(side=side, trials=trials, workers=2) for side in ("bare", "ours"))
        per_trial = {name: found["seconds"] / trials * 1000 for name, found in (("bare", bare), ("ours", ours))}
        first = first or per_trial["ours"]
        print(
            f"overhead, {trials} trials: ours {per_trial['ours']:.1f} ms a trial, bare Tune {per_trial['bare']:.1f}: "
            f"ratio {per_trial['ours'] / per_trial['bare']:.2f}; to ours at {given.trials[0]}: "
            f"{per_trial['ours'] / first:.2f}; driver memory grew by {ours['grown_mb']:.0f} MB "
            f"({ours['grown_mb'] / trials * 1000:.0f} KB a trial), bare {bare['grown_mb']:.0f} MB",
            flush=True,
        )


def overlap(given: argparse.Namespace) -> None:
    """Training and attacking of equal length: how long both take beside one after the other."""
    trials, seconds = 40, 1.0
    found = in_process(side="ours", trials=trials, workers=1, train=seconds, attack=seconds)
    ratio = found["busy_seconds"] / (2 * trials * seconds)
    print(
        f"overlap, {trials} trials of {seconds:g} s training and {seconds:g} s attacking, one worker each: "
        f"{found['busy_seconds']:.1f} s, {ratio:.2f} of one after the other",
        flush=True,
    )


def slots(given: argparse.Namespace) -> None:
    """Sleeping work on more and more slots, between the moment when all are up and the one when trials run out."""
    seconds, rounds = 10.0, 15
    for workers in given.slots:
        trials = workers * rounds
        found = in_process(side="ours", trials=trials, workers=workers, train=seconds)
        print(
            f"slots, {workers}: {trials} trials of {seconds:g} s, all slots up for {found['all_up_seconds']:.1f} s: "
            f"{found['busy_share']:.1%} of that spent on work",
            flush=True,
        )


def in_process(**settings: Any) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.orchestration", "one", "--one", json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(side: str, trials: int, workers: int, train: float = 0.0, attack: float = 0.0) -> dict[str, Any]:
    import ray

    from orchestrator.cluster.session import TUNE_SETTINGS

    patient = {"RAY_worker_register_timeout_seconds": "1200"}  # many workers that start on few cores are slow
    os.environ.update({**TUNE_SETTINGS, **patient})
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=workers + 1,
        _node_ip_address="127.0.0.2",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = ours if side == "ours" else bare
            return run(Path(folder), trials, workers, train, attack)
    finally:
        ray.shutdown()


def bare(folder: Path, trials: int, workers: int, train: float, attack: float) -> dict[str, Any]:
    from ray import tune

    class Trivial(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"score": self.config["lr"], "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    before, start = resident_mb(), time.perf_counter()
    tune.Tuner(
        tune.with_resources(Trivial, {"cpu": 1}),
        param_space={name: tune.loguniform(*bounds) for name, bounds in SPACE.items()},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=workers, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    ).fit()
    return {"seconds": time.perf_counter() - start, "grown_mb": resident_mb() - before}


def ours(folder: Path, trials: int, workers: int, train: float, attack: float) -> dict[str, Any]:
    from rich.console import Console

    from benchmarks.trivial import TrivialWork
    from orchestrator.analysis import load
    from orchestrator.cluster.run import run_sweep
    from orchestrator.progress import Progress
    from orchestrator.rundir import run_root
    from orchestrator.spec import load_spec

    resources: dict[str, Any] = {"trial": {"cpus": 1}, "evaluator": {"cpus": 1, "count": 1}}
    if workers > 1:  # one at a time would wait for each evaluation
        resources["max_concurrent"] = workers
    spec = load_spec({**SPEC, "search": {**SPEC["search"], "trials": trials}, "resources": resources})
    root = run_root(spec, folder)
    before, start = resident_mb(), time.perf_counter()
    run_sweep(
        spec,
        root,
        Progress(Console(file=io.StringIO())),
        make_work=lambda sweep, _: TrivialWork(sweep.store, train, attack),
    )
    seconds, grown = time.perf_counter() - start, resident_mb() - before
    run = load(root)
    rows = run.trials()
    assert len(rows) == rows["trial_id"].nunique() == trials, f"{len(rows)} rows of {trials} trials"
    assert (rows["status"] == "completed").all()
    busy = (rows["finished_at"].max() - rows["started_at"].min()).total_seconds()
    return {"seconds": seconds, "grown_mb": grown, "busy_seconds": busy, **utilization(run.events(), workers)}


def utilization(events: Any, workers: int) -> dict[str, float]:
    """What share of their time the slots worked, from when all were up to when one had no next trial."""
    spans = events[events["kind"].isin(["training started", "training ended"])]
    spans = spans.pivot_table(index="trial_id", columns="kind", values="at", aggfunc="first").sort_values(
        "training started"
    )
    began, ended = spans["training started"], spans["training ended"]
    first, last = began.iloc[workers - 1], ended.sort_values().iloc[len(ended) - workers]
    length = (last - first).total_seconds()
    inside = (ended.clip(upper=last) - began.clip(lower=first)).dt.total_seconds().clip(lower=0)
    return {"all_up_seconds": length, "busy_share": inside.sum() / (workers * length)}


def resident_mb() -> float:
    """Of this process now (Linux), else the most it had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
