"""Decides what to train next, who goes on, what to evaluate, who is a finalist. No Ray; the store is its memory."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.asha import SuccessiveHalving
from orchestrator.asking_again import ask_again
from orchestrator.configurations import Configurations, Configured
from orchestrator.errors import UserError
from orchestrator.evaluations import Evaluations
from orchestrator.goals import Goals
from orchestrator.lifecycle import DEGENERATE_AT_RUNG, ENDED, EVALUATION_FAILED, RETRY, SILENT, event, key_of
from orchestrator.measurement import Assignment, Found, Measurement
from orchestrator.metrics import metrics_of
from orchestrator.outcomes import facts, is_measured, mean_figures, outcome_of
from orchestrator.plan import Plan
from orchestrator.pretrained import Kept
from orchestrator.protocols import Protocols
from orchestrator.recorder import Recorder
from orchestrator.records import Record, Repeat, is_lacking, read_records, suggestions, take_in
from orchestrator.reuse import take
from orchestrator.rundir import provenance
from orchestrator.rungs import Reached, RungRule
from orchestrator.search import Asked, Outcome, Study
from orchestrator.seeds import trial_seeds
from orchestrator.siblings import Siblings
from orchestrator.space import Configuration
from orchestrator.spec import Cell, Spec
from orchestrator.storage import checkpoints
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.store import Store
from orchestrator.told import Told, rows_for
from orchestrator.warm_start import warm_start

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
        self.warm = warm_start(spec, store, self.ledger)
        self.studies = {name: self._study(cell) for name, cell in self.cells.items()}
        repeats = self._read()
        if is_lacking(suggestions(self.records, repeats)):
            ask_again(self, repeats)
            repeats = self._read()
            if is_lacking(suggestions(self.records, repeats)):
                raise UserError(f"{store.root}: suggestions are missing, and asking again did not bring them back")
            self.studies = {name: self._study(cell) for name, cell in self.cells.items()}
        self.siblings = Siblings(store.root, provenance(store)["code_version"]) if spec.search.reuse else None
        self._reopen_without_checkpoint()
        self.exhausted: set[str] = set()
        self._repeats = Counter[str]()
        self._states: dict[str, Counter[str]] = {"search": Counter(), "finalist": Counter()}
        for record in self.records.values():
            self._count(record)
        self._refuse_other_data()
        self._rebuild(repeats)
        self._write_missing_rows()
        self.ledger.flush()
        self._cut_off = deque(record.plan for record in self._searched() if record.ended is None)

    def next_trial(self) -> Plan | None:
        """The next search trial: one that was cut off, another seed of a configuration, else a new one.

        None when there is none now: then the search is over unless it `may_go_on`.
        """
        plan = self._choose()
        if plan is not None:
            self._reuse(plan)
        return plan

    def _choose(self) -> Plan | None:
        if self._cut_off:
            return self._cut_off.popleft()
        if (following := self.configured.next_due()) is not None:
            self._note_ask(following[0], following[1].asked)
            return following[0]
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
        self._reuse(plan)

    def best(self, cell: str, count: int) -> list[Record]:
        """A trial of each of the best configurations of a cell, at most `count`, best first by means over seeds.

        Those with a degenerate model are left out.
        """
        able = [found for found in self.configured.in_cell(cell) if found.may_win(self.evaluations.headline)]
        measured = [found.measured(self.evaluations.headline) for found in able]
        order = self.goals.order([mean_figures(trials, self.evaluations.headline) for trials in measured], count)
        return [measured[place][0] for place in order]

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
        """Note a trial's figures at a rung; whether it goes on.

        Finalists, trials at the top and the other seeds of a configuration are not stopped: of these, means over
        the ones that did well would be too good.
        """
        record = self.records[plan.trial_id]
        self.recorder.note(record, reached.told)
        self._note_earlier_rungs(record, reached)
        record.rungs[reached.epoch] = reached.metrics
        if reached.is_degenerate:
            record.degenerate_rungs.add(reached.epoch)
        self.ledger.flush_if_due()
        if plan.stage != "search" or not self.configured.is_compared(plan):
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
        else:
            record.ended = {
                "status": status, "error": error, "stage": plan.stage, "seed": plan.seed,
                "started_at": record.asked_at.isoformat(), **facts,
            }  # fmt: skip
            row = event(plan.trial_id, ENDED, record.ended)
            self.recorder.note(record, [("events", f"{plan.trial_id}.ended.{status}", [row])])
        self._count(record)
        if plan.stage == "search":
            self.configured.begin_others(self.configured[plan.config_id])
        if record.ended["status"] != "completed" or self._is_measured(record):
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
        if not self._is_measured(record):
            self.ended(record.plan, "failed", error, facts(record))
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
        is_idle = not (counts["running"] or counts["evaluating"] or self.configured.due)
        return is_idle and self._neediest_cell() is None

    @property
    def may_go_on(self) -> bool:
        """Whether there may be more to train once trials under way have ended: other seeds of their configurations."""
        return self.configured.have_several_seeds and bool(self.counts("search")["running"] or self.configured.due)

    def counts(self, stage: str) -> Counter[str]:
        """The trials of a stage by state: running, evaluating, completed, pruned, failed."""
        return self._states[stage]

    @property
    def total(self) -> int:
        """How many search trials there will have been in the end, as far as is known now."""
        to_come = (self.spec.search.trials - self.asked(name) for name in self.cells if name not in self.exhausted)
        begun = self.counts("search").total() + self.configured.due
        return begun + sum(max(0, configurations) for configurations in to_come)

    def asked(self, cell: str) -> int:
        """How many configurations of a cell were asked for."""
        return self.configured.count(cell)

    def state(self, record: Record) -> str:
        if record.ended is None:
            return "running"
        status = str(record.ended["status"])
        return "evaluating" if status == "completed" and self.evaluations.due(record) else status

    def _is_measured(self, record: Record) -> bool:
        """Whether a trial has the figures that it is told and ranked by."""
        return is_measured(record, self.evaluations.headline)

    def _count(self, record: Record) -> None:
        """Keep the number of trials in each state: a sweep has too many to count them anew each time."""
        states, state = self._states[record.plan.stage], self.state(record)
        if record.counted_as:
            states[record.counted_as] -= 1
        states[state] += 1
        record.counted_as = state

    def _study(self, cell: Cell) -> Study:
        past = self.warm.past.get(cell.name, ())
        return Study(cell.space, self.spec.search.sampler, self.goals.directions, self.spec.seed, cell.fixed, past=past)

    def _searched(self) -> list[Record]:
        return [record for record in self.records.values() if record.plan.stage == "search"]

    def _neediest_cell(self) -> str | None:
        """The cell with the fewest trials that still lacks some."""
        wanted = self.spec.search.trials
        open_cells = [name for name in self.cells if self.asked(name) < wanted and name not in self.exhausted]
        return min(open_cells, key=self.asked, default=None)

    def _ask(self, cell: Cell) -> Plan | None:
        """A new trial of a cell; None when the suggestion was a repeat, which is recorded and told again."""
        asked, configuration = self.studies[cell.name].ask()
        plan = self.plan(cell, configuration, asked.number)
        if plan.config_id not in self.configured:
            self._repeats[cell.name] = 0
            self._note_ask(plan, asked)
            self.configured[plan.config_id].numbers.append(asked.number)
            return plan
        found = self.configured[plan.config_id]
        found.numbers.append(asked.number)
        self._count_repeat(cell.name)
        self.recorder.repeated(plan, asked)
        self.ledger.flush("events")  # before a later suggestion is on record: numbers have no gaps
        outcome = self.outcome(found)
        if outcome is not None:
            self.studies[cell.name].tell(asked.number, outcome)
        return None

    def plan(self, cell: Cell, configuration: Configuration, number: int) -> Plan:
        """The trial of a configuration, with the first seed."""
        by_threat = "threat" in self.spec.matrix
        configuration = self.kept.taken(configuration)
        plan = Plan.of(cell, configuration, self.sizes[cell.name].fingerprint, self.spec.seed, number, by_threat)
        if plan.config_id not in self.configured or self.configured[plan.config_id].first.plan.cell == cell.name:
            return plan
        return plan.as_twin()  # another cell has it: each study must have a trial of its own

    def _note_ask(self, plan: Plan, asked: Asked) -> None:
        record = Record(plan, asked, datetime.now(UTC))
        self.add(record)
        self._count(record)
        self.recorder.asked(record)
        self.ledger.flush("asks")

    def add(self, record: Record) -> None:
        """Take in a trial that is new."""
        self.records[record.plan.trial_id] = record
        if record.plan.stage == "search":
            self.configured.add(record)

    def _read(self) -> list[Repeat]:
        """Take in every trial on record; gives the repeats."""
        records, repeats = read_records(self.store)
        self.records: dict[str, Record] = {}
        self.configured = Configurations(trial_seeds(self.spec.seed, self.spec.search.seeds))
        for record in records.values():
            self.add(record)
        return repeats

    def _reuse(self, plan: Plan) -> None:
        """Put on record what another run of the store has computed of a trial; its worker takes it up from there.

        A finalist is always attacked anew: nothing says that the test split is what it was.
        """
        record = self.records[plan.trial_id]
        if self.siblings is None or record.rungs or record.reopened:
            return
        final = self.measurement("final", plan.cell) if plan.stage == "search" else None
        taken = take(plan, self.rule(plan.cell), final, self.siblings, self.store)
        if taken is None:
            return
        take_in(record, taken.told)
        record.figures |= taken.figures
        self.recorder.note(record, taken.told)
        if plan.stage == "search" and self.configured.is_compared(plan):
            for epoch in sorted(record.rungs):
                self._compare(record, epoch)

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
            if self.state(record) in ("completed", "pruned", "failed") or (record.ended and self._is_measured(record)):
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
                if record.plan.stage == "search" and self.configured.is_compared(record.plan):
                    self._compare(record, epoch)

    def _settle(self, record: Record) -> None:
        """A trial is over: write its row and, if its configuration is, tell that to its study for every number."""
        if record.plan.stage == "search":
            found = self.configured[record.plan.config_id]
            outcome = None if found.is_told else self.outcome(found)
            if outcome is not None:
                found.is_told = True
                for number in found.numbers:
                    self.studies[record.plan.cell].tell(number, outcome)
        self.recorder.over(record)

    def _compare(self, record: Record, epoch: int) -> None:
        values = self.goals.gains(facts(record) | record.rungs[epoch])
        self.halving.record(record.plan.cell, epoch, record.plan.trial_id, values, epoch in record.degenerate_rungs)

    def outcome(self, found: Configured) -> Outcome | None:
        """How a configuration ended, as its study hears it; None while it is under way."""
        if not self.configured.is_whole(found):
            return None
        return outcome_of(found.trials, self.goals, self.evaluations.headline, self.spec.search.risk)

    def _rebuild(self, repeats: list[Repeat]) -> None:
        """Put every recorded suggestion back into its study, and every rung figure into its rung."""
        for asked, record in suggestions(self.records, repeats):
            found = self.configured[record.plan.config_id]
            if found.numbers:
                self._count_repeat(record.plan.cell)
            else:
                self._repeats[record.plan.cell] = 0
                self.configured.begin_others(found)
            outcome = self.outcome(found)
            found.is_told = outcome is not None
            self.studies[record.plan.cell].rebuild(asked, outcome)
            found.numbers.append(asked.number)
        for record in filter(lambda record: self.configured.is_compared(record.plan), self._searched()):
            for epoch, found_there in record.rungs.items():
                if self.goals.are_known(found_there | facts(record)):
                    self._compare(record, epoch)
