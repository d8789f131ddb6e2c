"""Kills drivers, trainers, evaluators, process groups and nodes at random moments, until every sweep has ended.

    python benchmarks/kill_campaign.py --kills 50 --seed 0             # Ray on this machine, started by each run
    python benchmarks/kill_campaign.py --kills 50 --seed 0 --cluster   # a head and four nodes that die and come back

What must hold, and is counted: every trial once; each summary what its rows say; tables that pandas reads at any
moment, from which no row vanishes; no process that outlives its driver; and one trial at a time, the ids, settings and
figures of an undisturbed run. Ends with 1 where something does not. Linux; Ray listens on loopback addresses, in the
cluster's case best inside `unshare -n` (with `ip link set lo up`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills.checking import wrong_with_store
from kills.comparing import differences
from kills.killing import Killer
from kills.nodes import Cluster
from kills.processes import adopt_orphans, below, end
from kills.running import Running
from kills.specs import SAMPLERS, spec
from kills.tables import read
from kills.victims import VICTIMS, is_agent
from kills.watching import Watcher

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


@dataclass
class Result:
    """What one sweep went through."""

    sweep: str
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    trials: int = 0
    looks: int = 0
    seconds: float = 0.0
    longest_orphan: float = 0.0
    longest_agent: float = 0.0
    compared_rows: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A campaign: see the options of the command."""

    kills: int
    seed: int
    trials: int
    samplers: list[str]
    victims: list[str]
    cluster: bool
    one_by_one: bool
    agent_seconds: float


def undisturbed(wanted: dict[str, Any], scratch: Path) -> Running:
    """The same sweep, left alone. Raises RuntimeError where even that does not end well."""
    scratch.mkdir()
    running = Running(wanted, scratch / "store", QUIET | {"RAY_TMPDIR": str(scratch)})  # no other Ray is to be seen
    running.start()
    assert running.driver is not None
    if running.driver.wait() != 0:
        raise RuntimeError(f"the undisturbed run ended with {running.driver.returncode}: {running.last_words()}")
    return running


def disturbed(
    wanted: dict[str, Any], scratch: Path, seed: int, most: int, plan: Plan, cluster: Cluster | None
) -> Result:
    """One sweep under fire, checked; compared with an undisturbed run where it has one trial at a time."""
    environment = QUIET | (cluster.environment if cluster else {})
    running = Running(wanted, scratch / f"disturbed-{seed}", environment, cluster.address if cluster else None)
    running.agent_seconds = plan.agent_seconds
    killer, watcher = Killer(running, seed, most, cluster, plan.victims), Watcher(running.root, seed)
    began = time.monotonic()
    watcher.start()
    killer.until_done()
    watcher.close()
    result = Result(str(wanted["name"]), killer.kills, running.starts, 0, watcher.looks, time.monotonic() - began)
    result.longest_orphan, result.longest_agent = running.longest_orphan, running.longest_agent
    result.wrong = [*killer.wrong, *running.wrong, *watcher.wrong]
    tables = read(running.root)
    result.trials = len(tables["trials"])
    test = wanted["evaluation"]["test"]
    completed = int(((tables["trials"]["stage"] == "search") & (tables["trials"]["status"] == "completed")).sum())
    finalists = min(test["finalists"], completed) * test["seeds"]
    result.wrong += wrong_with_store(running.root, tables, wanted["search"]["trials"], finalists)
    if wanted["resources"]["max_concurrent"] == 1 and not killer.wrong:
        alone = read(undisturbed(wanted, scratch / f"alone-{seed}").root)
        result.wrong += differences(tables, alone)
        result.compared_rows = sum(len(tables[name]) for name in tables if name != "events")
    return result


def campaign(plan: Plan, say: Any = print) -> list[Result]:
    """Sweep after sweep, a share of the kills in each, until there were so many kills."""
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    kills, sweeps = plan.kills, [(sampler, 1) for sampler in plan.samplers]
    sweeps += [] if plan.one_by_one else [(plan.samplers[0], 2)]
    per_sweep = max(1, -(-kills // len(sweeps)))
    results: list[Result] = []
    with ExitStack() as stack:
        stack.callback(lambda: end(below([os.getpid()])))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True)))
        os.environ["RAY_TMPDIR"] = str(scratch)
        cluster = None
        if plan.cluster:
            cluster = Cluster(scratch, QUIET)
        while (left := kills - sum(result.kills.total() for result in results)) > 0 and len(results) < 4 * len(sweeps):
            sampler, concurrent = sweeps[len(results) % len(sweeps)]
            wanted = spec(
                sampler, trials=plan.trials, concurrent=concurrent, seed=plan.seed + len(results) // len(sweeps)
            )
            number = plan.seed * 1000 + len(results)
            results.append(disturbed(wanted, scratch, number, min(left, per_sweep), plan, cluster))
            say(line(results[-1]))
            for text in results[-1].wrong:
                say(f"    WRONG {text}")
        if cluster is not None:
            cluster.close()
        if left := [found for found in below([os.getpid()]) if plan.agent_seconds or not is_agent(found)]:
            titles = "; ".join(found.title[:80] for found in left)
            results[-1].wrong.append(f"{len(left)} processes are left: {titles}")
    return results


COLUMNS = ("trials", "looks", "compared rows", "orphans s", "agents s", "seconds", "wrong")
HEADER = f"{'sweep':18}  starts  {'kills (by victim)':52}  {'  '.join(COLUMNS)}"


def line(result: Result) -> str:
    victims = ", ".join(f"{name} {count}" for name, count in sorted(result.kills.items()))
    counts = (result.trials, result.looks, result.compared_rows, f"{result.longest_orphan:.1f}")
    counts = (*counts, f"{result.longest_agent:.1f}", f"{result.seconds:.0f}", len(result.wrong))
    cells = "  ".join(f"{count:>{len(name)}}" for name, count in zip(COLUMNS, counts, strict=True))
    return f"{result.sweep:18}  {result.starts:6}  {f'{result.kills.total()} ({victims})':52}  {cells}"


def total(results: list[Result]) -> Result:
    found = Result("all")
    for result in results:
        found.kills += result.kills
        for name in ("starts", "trials", "looks", "seconds", "compared_rows", "wrong"):
            setattr(found, name, getattr(found, name) + getattr(result, name))
        found.longest_orphan = max(found.longest_orphan, result.longest_orphan)
        found.longest_agent = max(found.longest_agent, result.longest_agent)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=14, help="search trials in each sweep")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--cluster", action="store_true", help="a head and four nodes")
    parser.add_argument("--one-by-one", action="store_true", help="no sweep with two trials at a time")
    parser.add_argument("--agent-seconds", type=float, default=100.0, help="for Ray's own agents; 0: never mind them")
    parser.add_argument("--json", type=Path, help="write the counts to this file too")
    given = vars(parser.parse_args())
    target = given.pop("json")
    plan = Plan(**given)
    print(HEADER, flush=True)
    found = campaign(plan, lambda text: print(text, flush=True))
    everything = total(found)
    print(line(everything))
    if target:
        target.write_text(json.dumps({"all": vars(everything), "sweeps": [vars(one) for one in found]}))
    if everything.kills.total() < plan.kills:
        print(f"only {everything.kills.total()} of {plan.kills} kills were made: the sweeps ended before")
    sys.exit(bool(everything.wrong) or everything.kills.total() < plan.kills)
