"""A whole sweep on Ray: search, drain, finalists, drain."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig

from orchestrator.cluster.allocation import Allocation, allocate
from orchestrator.cluster.desk import MOST_RESTARTS, Desk
from orchestrator.cluster.evaluators import EvaluatorPool
from orchestrator.cluster.node_watch import NodeWatch
from orchestrator.cluster.nodes import refuse_other_code, refuse_unshared
from orchestrator.cluster.places import reserved
from orchestrator.cluster.session import connected
from orchestrator.cluster.trainable import Bench, TrialActor
from orchestrator.cluster.tuning import DeskCallback, DeskScheduler, DeskSearcher
from orchestrator.data_check import check_data
from orchestrator.exhaustion import exhausted_searches
from orchestrator.plan import Plan
from orchestrator.plugins.luggage import luggage
from orchestrator.plugins.record import changed_since
from orchestrator.progress import Progress
from orchestrator.rundir import open_run, open_run_directory
from orchestrator.spec import Spec
from orchestrator.splits import load_test, load_training
from orchestrator.storage.driver_lock import Held, driving
from orchestrator.storage.ledger import Ledger
from orchestrator.sweep import Sizes, Sweep
from orchestrator.training import TrainingData
from orchestrator.warm_start import refuse_missing_runs
from orchestrator.work import TorchWork, Work

Data = TypeVar("Data")
MakeWork = Callable[[Sweep, Allocation], Work]
TRIALS_PER_FIT = 1000  # of which Tune's driver keeps up to 75 KB each
ROUNDS_PER_FIT = 50  # at least, since slots stand idle at the end of each


def torch_work(sweep: Sweep, allocation: Allocation) -> Work:
    """Training and attacking for real, on as many threads as each worker has CPUs."""
    trainer, evaluator = (max(1, int(bundle.cpus)) for bundle in (allocation.trial, allocation.evaluator))
    rules = {name: sweep.rule(name) for name in sweep.cells}
    return TorchWork(sweep.store, rules, trainer, evaluator, luggage())


def run_sweep(
    spec: Spec,
    root: str,
    progress: Progress,
    address: str | None = None,
    time_budget: float = float("inf"),
    make_work: MakeWork = torch_work,
) -> None:
    """Run a sweep into the run directory `root`, or go on with it; what is on record is not done again.

    `time_budget` in seconds: after it no new trial is begun and no finalist stage. `make_work` says what the workers
    do. Raises UserError where the spec does not fit the run directory or the cluster, KeyboardInterrupt where the user
    ends it (finished work is kept).
    """
    deadline = time.monotonic() + time_budget
    files = open_run_directory(root, progress.line)
    with driving(files, progress.line) as held:
        changed = changed_since(files)
        by_cell = _by_cell(spec, lambda block: TrainingData(*load_training(block, spec.seed)))
        remarks = check_data(spec, {name: (found.train, found.validation) for name, found in by_cell.items()})
        refuse_missing_runs(spec, files)
        store = open_run(spec, files)  # after the data: a sweep that cannot begin leaves nothing on record
        sizes = {name: _sizes(found) for name, found in by_cell.items()}
        sweep = Sweep(spec, store, sizes, Ledger(store, may_write=held.check))
        if sweep.is_searched and not _lacks_finalists(sweep):
            sweep.ledger.flush()
            for line in ("nothing to do: every trial is on record", *exhausted_searches(sweep)):
                progress.line(line)
            return
        with connected(address) as nodes:
            refuse_unshared(files.root, files.is_local)
            refuse_other_code()
            allocation = allocate(spec.resources, nodes)
            for remark in (
                *remarks,
                *changed,
                *sweep.warm.remarks,
                *exhausted_searches(sweep),
                *allocation.remarks,
                describe(allocation),
            ):
                progress.line(remark)
            with progress, reserved(allocation, progress.line) as places:
                work = make_work(sweep, allocation)
                pool = EvaluatorPool(work, places, spec.resources.evaluator.time_limit)
                _run_stages(sweep, by_cell, Office(allocation, work, pool, progress, held, NodeWatch(), deadline))


def describe(allocation: Allocation) -> str:
    trials = f"{allocation.slots} trial{'s' * (allocation.slots != 1)} at a time ({allocation.trial} each)"
    count = allocation.evaluators
    return f"{trials}, {count} evaluator{'s' * (count != 1)} beside ({allocation.evaluator} each)"


@dataclass(frozen=True)
class Office:
    """What both stages of a sweep work with."""

    allocation: Allocation
    work: Work
    pool: EvaluatorPool
    progress: Progress
    held: Held
    nodes: NodeWatch
    deadline: float

    def desk(self, sweep: Sweep, splits: Mapping[str, Mapping[str, Any]], stage: str) -> Desk:
        one_by_one = sweep.spec.resources.max_concurrent == 1
        return Desk(sweep, self.pool, splits, self.progress, self.held, stage, self.nodes, one_by_one, self.deadline)


def _run_stages(sweep: Sweep, data: Mapping[str, TrainingData], office: Office) -> None:
    bench = Bench(office.work, _put(data))
    validation = _put({name: found.validation for name, found in data.items()})
    try:
        if not sweep.is_searched:
            _run_stage(office.desk(sweep, {"validation": validation}, "search"), bench, office.allocation)
        if not sweep.spec.evaluation.test.finalists or time.monotonic() > office.deadline:
            return
        classes = {repr(cell.dataset_block()): data[name].train.classes for name, cell in sweep.cells.items()}
        test = _by_cell(sweep.spec, lambda block: load_test(block, sweep.spec.seed, classes[repr(block)]))
        for name, split in test.items():
            sweep.sizes[name] = replace(sweep.sizes[name], test=len(split.labels))
        splits = {"validation": validation, "test": _put(test)}
        _run_stage(office.desk(sweep, splits, "finalist"), bench, office.allocation)
    except KeyboardInterrupt:
        sweep.ledger.flush()
        raise
    finally:
        office.pool.close()


def _run_stage(desk: Desk, bench: Bench, allocation: Allocation) -> None:
    """Tune in chunks: its driver keeps tens of kilobytes of every trial it has seen in one `fit`."""
    while not desk.is_over:
        if desk.must_wait:
            desk.drain()
        _fit(desk, bench, allocation)
    desk.drain()
    desk.sweep.ledger.flush()


def _fit(desk: Desk, bench: Bench, allocation: Allocation) -> None:
    plans: dict[str, Plan] = {}
    bundle = PlacementGroupFactory([{"CPU": allocation.trial.cpus, "GPU": allocation.trial.gpus}])
    with tempfile.TemporaryDirectory(prefix="robustsweep-tune-", ignore_cleanup_errors=True) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(TrialActor, bench=bench), bundle),
            tune_config=TuneConfig(
                search_alg=DeskSearcher(desk, plans),
                scheduler=DeskScheduler(desk, plans),
                num_samples=max(TRIALS_PER_FIT, ROUNDS_PER_FIT * allocation.slots),
                max_concurrent_trials=allocation.slots,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=RunConfig(
                name=desk.stage,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=MOST_RESTARTS),
                checkpoint_config=CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[DeskCallback(desk, plans, desk.sweep.spec.resources.trial.time_limit)],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception:
            desk.raise_trouble()
            raise
        desk.raise_trouble()


def _name(trial: Any) -> str:
    return str(trial.config["id"])


def _by_cell(spec: Spec, load: Callable[[dict[str, Any]], Data]) -> dict[str, Data]:
    """What `load` gives for the dataset of each cell, loaded once where cells share one."""
    blocks = {cell.name: cell.dataset_block() for cell in spec.cells()}
    loaded = {text: load(block) for text, block in {repr(block): block for block in blocks.values()}.items()}
    return {name: loaded[repr(block)] for name, block in blocks.items()}


def _put(by_cell: Mapping[str, Any]) -> dict[str, Any]:
    """One object in the store per distinct value, however many cells share it."""
    references = {id(value): ray.put(value) for value in {id(value): value for value in by_cell.values()}.values()}
    return {name: references[id(value)] for name, value in by_cell.items()}


def _sizes(data: TrainingData) -> Sizes:
    return Sizes(f"{data.train.fingerprint}/{data.validation.fingerprint}", len(data.validation.labels))


def _lacks_finalists(sweep: Sweep) -> bool:
    return bool(sweep.spec.evaluation.test.finalists and (sweep.finalists() or sweep.counts("finalist")["evaluating"]))
