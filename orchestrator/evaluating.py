"""Attacks the stored checkpoints of a run again: what `robustsweep evaluate RUN` does, in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch

from orchestrator.before_and_now import before_and_now
from orchestrator.chosen_trials import chosen
from orchestrator.errors import UserError
from orchestrator.judging import Evaluator
from orchestrator.measurement import Assignment, Measurement
from orchestrator.protocols import Protocols, blocks_of
from orchestrator.radii import refuse_levels
from orchestrator.recorder import Recorder
from orchestrator.records import Record, read_records
from orchestrator.rundir import SPEC, text_of
from orchestrator.spec import Spec, evaluation_sizes, load_spec
from orchestrator.splits import Split, load_test, load_training
from orchestrator.storage.checkpoints import CheckpointError
from orchestrator.storage.driver_lock import driving
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.patience import Patient
from orchestrator.storage.store import Store
from orchestrator.wanted import Wanted

if TYPE_CHECKING:
    from orchestrator.storage.files import Files


def evaluate_run(
    files: Files, what: Wanted, say: Callable[[str], None] = lambda _: None, device: str | None = None
) -> pd.DataFrame:
    """Measure and record; a row per trial and eps with the figures of before and of now.

    What is on record is not measured again. Raises UserError where the run, a trial or the name does not go with the
    call, or a sweep is running there.
    """
    files = Patient(files, say=say)
    with driving(files, say) as held:
        text = text_of(files, SPEC)
        spec = load_spec(f"{text}\n", name=f"{files.root}/{SPEC}")
        what = what.within(spec)
        store = Store(files, spec.param_columns())
        protocols = _protocols(files, spec)
        everyone = read_records(store)[0]
        records = chosen(everyone, what.trials, files.root)
        protocols.with_one(what.name, what.protocol)
        for norm in {record.plan.threat["norm"] for record in records}:
            refuse_levels(norm, what.protocol["eps"])
        _say_of_test(records, what.protocol["split"], say)
        work = _Work(spec, store, Ledger(store, may_write=held.check), what, device or best_device())
        splits = work.splits(records)  # before the name is taken: what cannot be read is known now
        store.prepare()
        protocols.with_one(what.name, what.protocol).write(store)
        work.recorder.refresh_stale(everyone.values())
        failed: dict[str, str] = {}
        lacking = [record for record in records if what.name not in record.evaluations]
        if not lacking:
            say(f"nothing to do: {what.name} of each of these models is on record")
        for place, record in enumerate(lacking):
            say(f"{place + 1}/{len(lacking)}  {record.plan.trial_id[:8]}  {record.plan.cell}")
            error = work.measure(record, splits[what.split(record.plan.stage), record.plan.cell])
            failed |= {record.plan.trial_id: error} if error else {}
        return before_and_now(store, records, what, failed)


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class _Work:
    """One evaluation of many models."""

    spec: Spec
    store: Store
    ledger: Ledger
    what: Wanted
    device: str

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.spec, self.store, self.ledger)
        self.evaluator = Evaluator(self.store, self.device)
        self.sizes: dict[str, tuple[int, int]] = {}  # by cell, of the rungs and of the final evaluation

    def splits(self, records: Sequence[Record]) -> dict[tuple[str, str], Split]:
        """The data by split and cell. Raises UserError where they are not those that the trials were trained on."""
        cells = {cell.name: cell.dataset_block() for cell in self.spec.cells()}
        found: dict[tuple[str, str], Split] = {}
        loaded: dict[str, tuple[Split, Split]] = {}
        for record in records:
            plan, split = record.plan, self.what.split(record.plan.stage)
            if (split, plan.cell) in found:
                continue
            block = cells.get(plan.cell, plan.dataset)
            if repr(block) not in loaded:
                loaded[repr(block)] = load_training(block, self.spec.seed)
            train, validation = loaded[repr(block)]
            if plan.fingerprint != f"{train.fingerprint}/{validation.fingerprint}":
                trained = f"that trial {plan.trial_id} was trained on"
                raise UserError(f"{self.store.root}: the data of {plan.cell} are not those {trained}")
            self.sizes[plan.cell] = evaluation_sizes(self.spec, len(validation.labels))
            is_test = split == "test"
            found[split, plan.cell] = load_test(block, self.spec.seed, train.classes) if is_test else validation
        return found

    def measure(self, record: Record, split: Split) -> str | None:
        """Attack one model and write down what was found; -> what went wrong."""
        assert record.ended is not None
        epoch = int(record.ended["checkpoint_epoch"])
        assignment = Assignment(record.plan, epoch, self._measurement(record, split))
        try:
            found = self.evaluator.evaluate(assignment, split)
        except (CheckpointError, ValueError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"
        for entry in found.told:
            self.ledger.append(*entry)
        self.ledger.flush()
        record.evaluations[self.what.name] = found.metrics
        self.recorder.refresh(record)
        return None

    def _measurement(self, record: Record, split: Split) -> Measurement:
        where, given, there = self.what.split(record.plan.stage), self.what.protocol, len(split.labels)
        rung, final = self.sizes[record.plan.cell]
        if where == "test":
            start, count = 0, self.what.count("test") or there
        else:
            start, count = rung, self.what.count("final") or final
        stop = min(start + count, there)
        attacks, eps = blocks_of(given), tuple(given["eps"])
        return Measurement(self.what.name, where, start, stop, attacks, False, eps, given["seed"])


def _protocols(files: Files, spec: Spec) -> Protocols:
    """Those of the run; of one that has no file of them, those of its spec."""
    found = Protocols.of(files)
    return found if found.known else found.with_spec(spec.evaluation.model_dump())


def _say_of_test(records: Sequence[Record], split: str | None, say: Callable[[str], None]) -> None:
    searched = sum(record.plan.stage == "search" for record in records)
    if split == "test" and searched:
        say(
            f"the test split is shown to {searched} search trials, as --split test asks: whoever chooses among them by "
            "these figures has no test split left"
        )
