"""Attacks the stored checkpoints of a run again: what `robustsweep evaluate RUN` does, in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from orchestrator.chosen_trials import chosen
from orchestrator.errors import UserError
from orchestrator.judging import Evaluator
from orchestrator.measurement import Assignment, Measurement
from orchestrator.protocols import Protocol, Protocols, base_of, blocks_of, default_name, protocol
from orchestrator.radii import read_eps, refuse_levels
from orchestrator.recorder import Recorder
from orchestrator.records import Record, read_records
from orchestrator.rundir import SPEC, text_of
from orchestrator.spec import Spec, evaluation_sizes, load_spec
from orchestrator.spec_models import EVALUATION_NAME, SPLITS
from orchestrator.splits import Split, load_test, load_training
from orchestrator.storage.checkpoints import CheckpointError
from orchestrator.storage.driver_lock import driving
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.patience import Patient
from orchestrator.storage.store import Store
from orchestrator.tables import all_tables
from orchestrator.trials_view import figures, rows_of
from orchestrator.wording import dotted, one_of, shown

if TYPE_CHECKING:
    from orchestrator.storage.files import Files

STAGE_SPLIT = {"search": "validation", "finalist": "test"}


@dataclass(frozen=True)
class Wanted:
    """What is to be measured, of which trials (their ids, or the beginnings of them; none: all that were completed)."""

    protocol: Protocol
    name: str
    trials: tuple[str, ...] = ()


def wanted(
    attacks: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    trials: Sequence[str] = (),
    split: str | None = None,
    eps: Sequence[float | str] = (),
    examples: int | None = None,
    seed: int | None = None,
    name: str | None = None,
) -> Wanted:
    """A call, checked as far as it can be without the run. Raises UserError, with the option that is wrong."""
    blocks = attack_blocks([attacks] if isinstance(attacks, (str, Mapping)) else list(attacks))
    if split is not None and split not in SPLITS:
        raise UserError(f"--split: {one_of(SPLITS, split)}")
    if examples is not None and examples < 1:
        raise UserError(f"--examples: must be a whole number >= 1, got {examples}")
    levels = sorted({read_eps(level) for level in eps})
    measured = protocol(split, examples, blocks, eps=levels, seed=seed)
    if name is not None and (not EVALUATION_NAME.fullmatch(name) or base_of(name) in ("rung", "final", "test")):
        rule = "must be letters, digits, '_' and '-', at most 64, no '-' in front, and none of rung, final, test"
        raise UserError(f"--name: {rule}, got {shown(name)}")
    return Wanted(measured, name or default_name(measured), tuple(trials))


def attack_blocks(attacks: Sequence[Any]) -> list[dict[str, Any]]:
    """The normalised blocks of attacks given by name or as mappings. Raises UserError."""
    if not attacks:
        raise UserError("--attack: at least one is needed, such as strong_pgd or '{name: pgd, steps: 200}'")
    blocks, problems = all_tables().attack_blocks(attacks, ())
    if problems:
        lines = (f"--attack {shown(attacks[int(p.at[0])])}: {_inner(p.at[1:])}{p.text}" for p in problems)
        raise UserError("\n".join(lines))
    return blocks


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
        for place, record in enumerate(records):
            if what.name not in record.evaluations:
                say(f"{place + 1}/{len(records)}  {record.plan.trial_id[:8]}  {record.plan.cell}")
                error = work.measure(record, splits[_split_of(record, what), record.plan.cell])
                failed |= {record.plan.trial_id: error} if error else {}
        return _table(store, protocols, records, what, failed)


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
            plan, split = record.plan, _split_of(record, self.what)
            if (split, plan.cell) in found:
                continue
            block = cells.get(plan.cell, plan.dataset)
            train, validation = loaded.setdefault(repr(block), load_training(block, self.spec.seed))
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
        where, given, there = _split_of(record, self.what), self.what.protocol, len(split.labels)
        rung, final = self.sizes[record.plan.cell]
        start, usual = (0, self.spec.evaluation.test.examples or there) if where == "test" else (rung, final)
        stop = min(start + (given["examples"] or usual), there)
        attacks, eps = blocks_of(given), tuple(given["eps"])
        return Measurement(self.what.name, where, start, stop, attacks, False, eps, given["seed"])


def _protocols(files: Files, spec: Spec) -> Protocols:
    """Those of the run; of one that has no file of them, those of its spec."""
    found = Protocols.of(files)
    return found if found.known else found.with_spec(spec.evaluation.model_dump())


def _split_of(record: Record, what: Wanted) -> str:
    return str(what.protocol["split"] or STAGE_SPLIT[record.plan.stage])


def _say_of_test(records: Sequence[Record], split: str | None, say: Callable[[str], None]) -> None:
    searched = sum(record.plan.stage == "search" for record in records)
    if split == "test" and searched:
        say(
            f"the test split is shown to {searched} search trials, as --split test asks: whoever chooses among them by "
            "these figures has no test split left"
        )


def _inner(at: Sequence[str | int]) -> str:
    return f"{dotted(tuple(at))}: " if at else ""


def _table(
    store: Store, protocols: Protocols, records: Sequence[Record], what: Wanted, failed: dict[str, str]
) -> pd.DataFrame:
    """A row per trial and eps. `before` are the figures of the trial's own evaluation, `final` or `test`."""
    rows = store.read("trials").set_index("trial_id")
    found = []
    for record in records:
        plan = record.plan
        own = rows.loc[plan.trial_id] if plan.trial_id in rows.index else None
        attacks, examples = (store.read_trial(table, plan.trial_id) for table in ("attacks", "examples"))
        levels = what.protocol["eps"] or [plan.threat["eps"]]
        doubts = _doubts(store, plan.trial_id, what.name)
        for eps in levels:
            now = figures(attacks, examples, what.name, eps)
            found.append(
                {
                    "trial_id": plan.trial_id, "cell": plan.cell, "stage": plan.stage,
                    "evaluation": what.name, "split": _split_of(record, what), "eps": eps,
                    "before": None if own is None else own["evaluation"],
                    "before_robust_accuracy": None if own is None else own["robust_accuracy"],
                    **{name: now[name] for name in ("n", "clean_accuracy", "robust_accuracy")},
                    "ci_low": now["robust_ci_low"], "ci_high": now["robust_ci_high"],
                    "doubts": len(doubts), "error": failed.get(plan.trial_id),
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def _doubts(store: Store, trial_id: str, name: str) -> list[dict[str, Any]]:
    events = store.read_trial("events", trial_id)
    return rows_of(events[events["kind"].str.startswith("doubt:") & events["evidence"].str.startswith(f"{name}: ")])
