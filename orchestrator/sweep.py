"""Decides what to train next, who goes on, what to evaluate, who is a finalist. No Ray; the store is its memory."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.asha import SuccessiveHalving
from orchestrator.errors import UserError
from orchestrator.evaluations import Evaluations
from orchestrator.goals import Goals
from orchestrator.lifecycle import DEGENERATE_AT_RUNG, ENDED, EVALUATION_FAILED, RETRY, SILENT, event, key_of
from orchestrator.measurement import Assignment, Found, Measurement
from orchestrator.metrics import metrics_of
from orchestrator.plan import Plan
from orchestrator.pretrained import Kept
from orchestrator.protocols import Protocols
from orchestrator.recorder import Recorder
from orchestrator.records import Record, Repeat, is_lacking, read_records, suggestions
from orchestrator.rungs import Reached, RungRule
from orchestrator.search import Asked, Outcome, Study
from orchestrator.space import Configuration
from orchestrator.spec import Cell, Spec
from orchestrator.storage import checkpoints
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.store import Store
from orchestrator.told import Told, rows_for

REPEATS_IN_A_ROW = 20  # known configurations suggested one after the other, after which a cell's search ends


@dataclass(frozen=True)
class Sizes:
    """What must be known of a cell's data before anything is trained: its content, its validation and test rows."""

    fingerprint: str
    validation: int
    test: int | None = None  # known when the finalists begin: nothing before may read the test split


class Sweep:
    """One sweep: a study per cell, the rungs, every trial on record; rebuilt from the store when made.

    What it decides upon is written by `ledger`: a suggestion before its training begins, the rest a moment later.
    """

    def __init__(self, spec: Spec, store: Store, sizes: Mapping[str, Sizes], ledger: Ledger | None = None) -> None:
        self.spec, self.store, self.sizes = spec, store, dict(sizes)
        self.ledger = ledger or Ledger(store)
        self.recorder = Recorder(spec, store, self.ledger)
        self.evaluations = Evaluations(spec, Protocols.of(store.files))
        self.kept = Kept(store.files)
        self.cells = {cell.name: cell for cell in spec.cells()}
        self.goals = Goals(spec.search.objectives, spec.search.constraints)
        self.halving = SuccessiveHalving(spec.scheduler.reduction_factor)
        self.studies = {name: self._study(cell) for name, cell in self.cells.items()}
        self.records, repeats = read_records(store)
        if is_lacking(suggestions(self.records, repeats)):
            self._ask_again(repeats)
            self.records, repeats = read_records(store)
            if is_lacking(suggestions(self.records, repeats)):
                raise UserError(f"{store.root}: suggestions are missing, and asking again did not bring them back")
            self.studies = {name: self._study(cell) for name, cell in self.cells.items()}
        self._reopen_without_checkpoint()
        self.exhausted: set[str] = set()
        self._repeats = Counter[str]()
        self._numbers: dict[str, list[int]] = {}
        self._asked = Counter(record.plan.cell for record in self._searched())
        self._states: dict[str, Counter[str]] = {"search": Counter(), "finalist": Counter()}
        for record in self.records.values():
            self._count(record)
        self._refuse_other_data()
        self._rebuild(repeats)
        self._write_missing_rows()
        self.ledger.flush()
        self._cut_off = deque(record.plan for record in self._searched() if record.ended is None)

    def next_trial(self) -> Plan | None:
        """The next search trial: one that was cut off, else a new one; None when the search is over."""
        if self._cut_off:
            return self._cut_off.popleft()
        while (name := self._neediest_cell()) is not None:
            plan = self._ask(self.cells[name])
            if plan is not None:
                return plan
        return None

    def finalists(self) -> list[Plan]:
        """The finalist trials that have not ended: those that were begun, and the best of each cell per fresh seed."""
        records = [record for record in self.records.values() if record.plan.stage == "finalist"]
        plans, test = [record.plan for record in records if record.ended is None], self.spec.evaluation.test
        for name in self.cells:
            for place, record in enumerate(self.best(name, test.finalists)):
                for turn in range(1 if record.plan.is_pretrained else test.seeds):
                    plan = record.plan.as_finalist(self.spec.seed + 1 + turn, place * test.seeds + turn)
                    plans += [plan] if plan.trial_id not in self.records else []
        return plans

    def begin_finalist(self, plan: Plan) -> None:
        """Note that a finalist is to be trained now: from then on it is finished, even if others overtake it."""
        if plan.trial_id not in self.records:
            self._note_ask(plan, Asked(plan.number, {}, {}, {}))

    def best(self, cell: str, count: int) -> list[Record]:
        """The best completed search trials of a cell, at most `count`, best first; degenerate models are left out."""
        final = self.evaluations.name("final")
        done = [r for r in self._searched() if r.plan.cell == cell and final in r.evaluations and not r.is_degenerate]
        return [done[place] for place in self.goals.order([self._figures(record) for record in done], count)]

    def rule(self, cell: str) -> RungRule:
        """When the trials of a cell are compared, and by what."""
        scheduler = self.spec.scheduler
        grace = scheduler.grace_epochs if scheduler.name == "asha" else 10**9
        return RungRule(self.measurement("rung", cell), grace, scheduler.reduction_factor)

    def measurement(self, evaluation: str, cell: str) -> Measurement:
        """What an evaluation measures: rung and final on rows of the validation split that do not overlap."""
        sizes = self.sizes[cell]
        return self.evaluations.measurement(evaluation, sizes.validation, sizes.test, self.goals.need_curve)

    def reached(self, plan: Plan, reached: Reached) -> bool:
        """Note a trial's figures at a rung; whether it goes on. Finalists and trials at the top are not stopped."""
        record = self.records[plan.trial_id]
        self.recorder.note(record, reached.told)
        self._note_earlier_rungs(record, reached)
        record.rungs[reached.epoch] = reached.metrics
        if reached.is_degenerate:
            record.degenerate_rungs.add(reached.epoch)
        self.ledger.flush_if_due()
        if plan.stage != "search":
            return True
        self._compare(record, reached.epoch)
        if record.reopened:
            return bool(record.reopened["status"] != "pruned")
        return reached.is_top or self.halving.goes_on(plan.cell, reached.epoch, plan.trial_id)

    def ended(self, plan: Plan, status: str, error: str | None, facts: Mapping[str, Any]) -> None:
        """Record how a trial's training ended (completed, pruned, failed); tell the search if that is all."""
        record = self.records[plan.trial_id]
        if record.reopened and status != "failed":
            record.ended = record.reopened
            self._count(record)
            if self._outcome(record) is not None:
                self._settle(record)
            return
        record.ended = {
            "status": status, "error": error, "stage": plan.stage, "seed": plan.seed,
            "started_at": record.asked_at.isoformat(), **facts,
        }  # fmt: skip
        row = event(plan.trial_id, ENDED, record.ended)
        self.recorder.note(record, [("events", f"{plan.trial_id}.ended.{status}", [row])])
        self._count(record)
        if status != "completed":
            self._settle(record)
        self.ledger.flush_if_due()

    def retried(self, plan: Plan, why: str, kind: str = RETRY) -> None:
        """Note that a worker had to be replaced."""
        record, row = self.records[plan.trial_id], event(plan.trial_id, kind, why)
        record.hangs += why.startswith(SILENT)
        self.recorder.note(record, [("events", key_of(plan.trial_id, kind, row["at"]), [row])])

    def told(self, plan: Plan) -> Told:
        """The records of a trial that its next worker must know: what is on record of its rungs."""
        return [entry for entry in self.records[plan.trial_id].told if entry[1]]

    def evaluated(self, assignment: Assignment, found: Found | None, error: str | None) -> None:
        """Take in what an evaluator found; each of its evaluations is apart from the others."""
        record = self.records[assignment.plan.trial_id]
        if found is None:
            self._not_evaluated(record, assignment.measurement.evaluation, error)
            return
        name, is_known = assignment.measurement.evaluation, self.ledger.has("trials", assignment.plan.trial_id)
        self.recorder.note(record, found.told)
        record.evaluations[name] = dict(found.metrics)
        record.figures[name] = dict(found.figures)
        is_first = name == self.evaluations.headline(record.plan.stage)
        record.is_degenerate = record.is_degenerate or (is_first and found.is_degenerate)
        self._count(record)
        if is_first:
            self._settle(record)
        if is_known:
            self.recorder.refresh(record)
        self.ledger.flush_if_due()

    def _not_evaluated(self, record: Record, name: str, error: str | None) -> None:
        """A trial that could not be measured has failed; without an evaluation beside it is what it was."""
        if self.evaluations.headline(record.plan.stage) not in record.evaluations:
            self.ended(record.plan, "failed", error, self._facts(record))
            return
        row = event(record.plan.trial_id, EVALUATION_FAILED, {"evaluation": name, "error": error})
        self.recorder.note(record, [("events", key_of(record.plan.trial_id, EVALUATION_FAILED, row["at"]), [row])])
        record.given_up.add(name)
        self._count(record)

    def assignment(self, plan: Plan) -> Assignment:
        """The next evaluation that a trial which reached the top is due."""
        record = self.records[plan.trial_id]
        assert record.ended is not None
        evaluation = self.evaluations.due(record)[0]
        return Assignment(plan, int(record.ended["checkpoint_epoch"]), self.measurement(evaluation, plan.cell))

    def is_due(self, plan: Plan) -> bool:
        """Whether a trial waits for its evaluation."""
        return self.state(self.records[plan.trial_id]) == "evaluating"

    def unevaluated(self, stage: str) -> list[Assignment]:
        """What earlier runs trained to the top and did not evaluate."""
        return [
            self.assignment(record.plan)
            for record in self.records.values()
            if record.plan.stage == stage and self.state(record) == "evaluating"
        ]

    @property
    def is_searched(self) -> bool:
        """Whether every search trial that is wanted is asked for, trained and evaluated."""
        counts = self.counts("search")
        return not (counts["running"] or counts["evaluating"]) and self._neediest_cell() is None

    def counts(self, stage: str) -> Counter[str]:
        """The trials of a stage by state: running, evaluating, completed, pruned, failed."""
        return self._states[stage]

    @property
    def total(self) -> int:
        """How many search trials there will have been in the end, as far as is known now."""
        wanted, asked = self.spec.search.trials, self._asked
        return sum(asked[name] if name in self.exhausted else max(asked[name], wanted) for name in self.cells)

    def state(self, record: Record) -> str:
        if record.ended is None:
            return "running"
        status = str(record.ended["status"])
        return "evaluating" if status == "completed" and self.evaluations.due(record) else status

    def _count(self, record: Record) -> None:
        """Keep the number of trials in each state: a sweep has too many to count them anew each time."""
        states, state = self._states[record.plan.stage], self.state(record)
        if record.counted_as:
            states[record.counted_as] -= 1
        states[state] += 1
        record.counted_as = state

    def _study(self, cell: Cell) -> Study:
        return Study(cell.space, self.spec.search.sampler, self.goals.directions, self.spec.seed, cell.fixed)

    def _searched(self) -> list[Record]:
        return [record for record in self.records.values() if record.plan.stage == "search"]

    def _neediest_cell(self) -> str | None:
        """The cell with the fewest trials that still lacks some."""
        asked, wanted = self._asked, self.spec.search.trials
        open_cells = [name for name in self.cells if asked[name] < wanted and name not in self.exhausted]
        return min(open_cells, key=lambda name: asked[name], default=None)

    def _ask(self, cell: Cell) -> Plan | None:
        """A new trial of a cell; None when the suggestion was a repeat, which is recorded and told again."""
        asked, configuration = self.studies[cell.name].ask()
        plan = self._plan(cell, configuration, asked.number)
        self._numbers.setdefault(plan.trial_id, []).append(asked.number)
        if plan.trial_id not in self.records:
            self._repeats[cell.name] = 0
            self._asked[cell.name] += 1
            self._note_ask(plan, asked)
            return plan
        self._count_repeat(cell.name)
        self.recorder.repeated(plan, asked)
        self.ledger.flush("events")  # before a later suggestion is on record: numbers have no gaps
        outcome = self._outcome(self.records[plan.trial_id])
        if outcome is not None:
            self.studies[cell.name].tell(asked.number, outcome)
        return None

    def _plan(self, cell: Cell, configuration: Configuration, number: int) -> Plan:
        by_threat = "threat" in self.spec.matrix
        configuration = self.kept.taken(configuration)
        plan = Plan.of(cell, configuration, self.sizes[cell.name].fingerprint, self.spec.seed, number, by_threat)
        known = self.records.get(plan.trial_id)
        if known is None or known.plan.cell == cell.name:
            return plan
        return plan.as_twin()  # another cell has it: each study must have a trial of its own

    def _note_ask(self, plan: Plan, asked: Asked) -> None:
        record = Record(plan, asked, datetime.now(UTC))
        self.records[plan.trial_id] = record
        self._count(record)
        self.recorder.asked(record)
        self.ledger.flush("asks")

    def _count_repeat(self, cell: str) -> None:
        self._repeats[cell] += 1
        if self._repeats[cell] >= REPEATS_IN_A_ROW:
            self.exhausted.add(cell)

    def _refuse_other_data(self) -> None:
        """Raises UserError where trials on record saw other data than those at hand."""
        for record in self.records.values():
            plan, sizes = record.plan, self.sizes.get(record.plan.cell)
            if sizes is not None and plan.fingerprint != sizes.fingerprint:
                raise UserError(
                    f"{self.store.root}: the data of {plan.cell} have changed since trial {plan.trial_id} was trained "
                    f"(fingerprint {sizes.fingerprint[:12]}, was {plan.fingerprint[:12]}): give the sweep another name"
                )

    def _reopen_without_checkpoint(self) -> None:
        """Train again what was trained and not evaluated, and whose checkpoint is damaged or lost."""
        for record in self.records.values():
            if self.state(record) == "evaluating":
                assert record.ended is not None
                name = record.ended["checkpoint"]
                if name is not None and not checkpoints.is_sound(self.store.files, name):
                    record.reopened, record.ended = record.ended, None

    def _write_missing_rows(self) -> None:
        """The rows of trials that were over when an earlier driver died before it had written them."""
        for record in self.records.values():
            is_measured = self.evaluations.headline(record.plan.stage) in record.evaluations
            if self.state(record) in ("completed", "pruned", "failed") or (record.ended and is_measured):
                self.recorder.over_before(record)
        self.recorder.refresh_stale(self.records.values())

    def _note_earlier_rungs(self, record: Record, reached: Reached) -> None:
        """Rungs that a checkpoint knew of and the store did not: a driver died before it had written them."""
        for row in rows_for(reached.told, "events"):
            if row["kind"] == DEGENERATE_AT_RUNG:
                record.degenerate_rungs.add(json.loads(row["evidence"])["epoch"])
        for table, _, rows in reached.told:
            if table == "attacks" and (epoch := rows[0]["epoch"]) not in {*record.rungs, reached.epoch}:
                trained = [row["seconds"] for row in rows_for(record.told, "epochs") if row["epoch"] <= epoch]
                known = {"seconds": sum(trained), "parameters": reached.metrics["parameters"]}
                record.rungs[epoch] = metrics_of(rows, record.plan.threat["eps"]) | known
                if record.plan.stage == "search":
                    self._compare(record, epoch)

    def _settle(self, record: Record) -> None:
        """A trial is over, but for evaluations beside: tell its study, and write its row."""
        self._tell(record)
        self.recorder.over(record)

    def _tell(self, record: Record) -> None:
        """Tell a trial's study how it ended, every time it was suggested."""
        outcome = self._outcome(record)
        if record.plan.stage == "search" and outcome is not None:
            for number in self._numbers[record.plan.trial_id]:
                self.studies[record.plan.cell].tell(number, outcome)

    def _compare(self, record: Record, epoch: int) -> None:
        values = self.goals.gains(self._facts(record) | record.rungs[epoch])
        self.halving.record(record.plan.cell, epoch, record.plan.trial_id, values, epoch in record.degenerate_rungs)

    def _outcome(self, record: Record) -> Outcome | None:
        """How a trial ended, as its study hears it; None while it is under way."""
        state = self.state(record)
        is_known = self.evaluations.headline(record.plan.stage) in record.evaluations
        if state == "running" or (state == "evaluating" and not is_known):
            return None
        if state in ("completed", "evaluating"):
            figures = self._figures(record)
            constraints = self.goals.violations(figures) | {"degenerate": float(record.is_degenerate)}
            return Outcome("completed", self.goals.values(figures), None, constraints)
        known = {epoch: self._facts(record) | found for epoch, found in sorted(record.rungs.items())}
        rungs = {epoch: self.goals.values(found)[0] for epoch, found in known.items() if self.goals.are_known(found)}
        return Outcome(state, None, rungs, {"degenerate": float(bool(record.degenerate_rungs & set(list(rungs)[-1:])))})

    def _figures(self, record: Record) -> dict[str, float]:
        return record.evaluations[self.evaluations.headline(record.plan.stage)] | self._facts(record)

    def _facts(self, record: Record) -> dict[str, Any]:
        """Of an ended trial: what is known without an evaluation, `seconds` of training and `parameters` among them."""
        said = dict(record.ended or {})
        extra = {"seconds": said["train_seconds"]} if "train_seconds" in said else {}
        extra |= {"parameters": record.parameters} if record.parameters is not None else {}
        return {
            name: value
            for name, value in said.items()
            if name not in ("status", "error", "stage", "seed", "started_at")
        } | extra

    def _ask_again(self, repeats: list[Repeat]) -> None:
        """Ask again for suggestions that were lost with a damaged part, in the order in which all were asked for.

        The same number gives the same suggestion where the search does not learn (random, qmc, grid), and mostly so
        where it does; what is on record of that trial is then found again.
        """
        noted = {(repeat.trial_id, repeat.asked.number) for repeat in repeats}
        known: dict[str, dict[int, tuple[Asked, Record]]] = {name: {} for name in self.cells}
        for asked, record in suggestions(self.records, repeats):
            known[record.plan.cell][asked.number] = asked, record
        ends = {name: max(found, default=-1) for name, found in known.items()}
        for number in range(max(ends.values(), default=-1) + 1):
            for name in [name for name in self.cells if number <= ends[name]]:
                if number in known[name]:
                    asked, record = known[name][number]
                    self.studies[name].rebuild(asked, self._outcome(record))
                    continue
                asked, configuration = self.studies[name].ask()
                plan = self._plan(self.cells[name], configuration, number)
                if plan.trial_id not in self.records:
                    following = min(later for later in known[name] if later > number)
                    just_before = timedelta(microseconds=1 + following - number)
                    asked_at = known[name][following][1].asked_at - just_before
                    self.records[plan.trial_id] = Record(plan, asked, asked_at)
                    self.recorder.asked(self.records[plan.trial_id])
                elif (plan.trial_id, number) not in noted:
                    self.recorder.repeated(plan, asked)
        self.ledger.flush()

    def _rebuild(self, repeats: list[Repeat]) -> None:
        """Put every recorded suggestion back into its study, and every rung figure into its rung."""
        known = {record.plan.trial_id: record for record in self._searched()}
        for asked, record in suggestions(self.records, repeats):
            plan = record.plan
            self.studies[plan.cell].rebuild(asked, self._outcome(record))
            numbers = self._numbers.setdefault(plan.trial_id, [])
            if numbers:
                self._count_repeat(plan.cell)
            else:
                self._repeats[plan.cell] = 0
            numbers.append(asked.number)
        for record in known.values():
            for epoch, found in record.rungs.items():
                if self.goals.are_known(found | self._facts(record)):
                    self._compare(record, epoch)
