"""The driver's desk: between Tune, which trains, the pool, which evaluates, and the sweep, which decides."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.cluster.evaluators import EvaluatorPool, Verdict
from orchestrator.cluster.node_watch import NodeWatch
from orchestrator.cluster.trainable import DEATHS, Orders, Report
from orchestrator.lifecycle import NODE_LOST, SILENT
from orchestrator.measurement import Assignment
from orchestrator.plan import Plan
from orchestrator.progress import Progress
from orchestrator.protocols import SELECTING, base_of
from orchestrator.records import Record
from orchestrator.rungs import Reached
from orchestrator.storage.driver_lock import Held
from orchestrator.storage.patience import StoreLost
from orchestrator.sweep import REPEATS_IN_A_ROW, Sweep
from orchestrator.told import told_to_json

MOST_RESTARTS = 30  # of a trial's worker, for whatever reason: nodes may go and come all the time
QUEUE_PER_EVALUATOR = 16  # assignments waiting, above which no new trial is begun
SHOWN_EVERY = 1.0  # seconds between two looks for the best trial
LOOKING_SHARE = 50  # how much longer than a look the pause after it is, at least


class Desk:
    """One stage, "search" or "finalist".

    `splits` are object references by split and cell. `one_by_one` awaits each evaluation before the next trial is
    chosen, so that the search does not depend on timing. After `deadline` (of the monotonic clock) no new trial is
    begun.
    """

    def __init__(
        self,
        sweep: Sweep,
        pool: EvaluatorPool,
        splits: Mapping[str, Mapping[str, Any]],
        progress: Progress,
        held: Held,
        stage: str,
        nodes: NodeWatch,
        one_by_one: bool = False,
        deadline: float = float("inf"),
    ) -> None:
        self.sweep, self.pool, self.splits, self.progress, self.held = sweep, pool, splits, progress, held
        self.stage, self.nodes, self.one_by_one, self.deadline = stage, nodes, one_by_one, deadline
        self.is_over = False
        self._trouble: Exception | None = None
        self._deaths = Counter[str]()
        self._restarts = Counter[str]()
        self._again = deque[Plan]()
        self._looks_at = 0.0
        self._best = ""
        self._finalists = deque(sweep.finalists() if stage == "finalist" else [])
        new = sum(plan.trial_id not in sweep.records for plan in self._finalists)
        self._finalist_total = sweep.counts("finalist").total() + new
        progress.stage(stage, self._total(), self._counts())
        for assignment in sweep.unevaluated(stage):
            self._submit(assignment)

    @property
    def must_wait(self) -> bool:
        """Whether so much waits to be evaluated that no trial should begin."""
        return self.pool.pending >= (1 if self.one_by_one else QUEUE_PER_EVALUATOR * self.pool.size)

    def next_trial(self) -> Plan | None:
        """The next trial of this stage; None when there is none now: then `is_over`, if none is to come."""
        has_time = time.monotonic() <= self.deadline
        plan = self._choose() if has_time else None
        self.is_over = plan is None and not (has_time and self.stage == "search" and self.sweep.may_go_on)
        return plan

    def reached(self, plan: Plan, reached: Reached) -> bool:
        """A trial is at a rung: whether it goes on."""
        goes_on = self.sweep.reached(plan, reached)
        self._update()
        return goes_on

    def ended(self, plan: Plan, report: Report | None) -> None:
        """A trial's training is over; `report` is its last one, None when Tune gives its worker up.

        Raises StoreLost where a worker's store did not come back: the trial is as it was.
        """
        if report is not None and report.is_store_lost:
            raise StoreLost(str(report.error))
        if report is None and self._restarts[plan.trial_id] < MOST_RESTARTS:  # a worker was lost while it was idle
            self._restarts[plan.trial_id] += 1
            self._again.append(plan)
            self.is_over = False
            return
        if report is None or report.reached is None:
            error = report.error if report else f"its worker was lost more than {MOST_RESTARTS} times"
            self.sweep.ended(plan, "failed", error, {})
        elif report.reached.is_top:
            self.reached(plan, report.reached)  # Tune does not show its scheduler the last result of a trial
            self.sweep.ended(plan, "completed", None, report.facts)
            if self.sweep.is_due(plan):
                self._submit(self.sweep.assignment(plan))
        else:
            self.sweep.ended(plan, "pruned", None, report.facts)
        self._say(self.sweep.records[plan.trial_id])

    def poll(self, timeout: float = 0.0) -> None:
        """Take in what evaluators finished, and have written what waits to be.

        Raises UserError where another driver has taken over the run.
        """
        self.held.check()
        for verdict in self.pool.poll(timeout):
            self._take(verdict)
        while self.pool.troubles:
            self.progress.line(self.pool.troubles.pop(0))
        self.sweep.ledger.flush_if_due()

    @contextmanager
    def keeping_trouble(self) -> Iterator[None]:
        """Tune makes a text of what is raised within it, or goes on: what went wrong here is kept, and raised again."""
        self.raise_trouble()
        try:
            yield
        except Exception as error:
            self._trouble = error
            raise

    def raise_trouble(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._trouble is not None:
            raise self._trouble

    def drain(self) -> None:
        """Wait until nothing is left to be evaluated."""
        while self.pool.pending:
            self.poll(timeout=0.5)

    def orders(self, plan: Plan) -> Orders:
        """What a worker must know to take up a trial where it is."""
        told, hangs = told_to_json(self.sweep.told(plan)), self.sweep.records[plan.trial_id].hangs
        return Orders(plan, told, hangs, self._deaths[plan.trial_id])

    def silent(self, plan: Plan, seconds: float) -> None:
        """A trial's worker went without a report for too long and was ended; Tune starts the trial again."""
        self._restarts[plan.trial_id] += 1
        self.sweep.retried(plan, f"{SILENT} {seconds:g} s")

    def died(self, plan: Plan) -> None:
        """A trial's worker died, and another will take up the trial."""
        self._deaths[plan.trial_id] += 1
        self._restarts[plan.trial_id] += 1
        times = f"{self._deaths[plan.trial_id]} of at most {DEATHS} times"
        self.sweep.retried(plan, f"its worker died ({times}); it goes on from its checkpoint")

    def lost(self, plan: Plan) -> None:
        """A trial's node was lost, which does not count against the trial: another will take it up."""
        self._restarts[plan.trial_id] += 1
        self.sweep.retried(plan, "its node was lost; it goes on from its checkpoint", NODE_LOST)

    def _choose(self) -> Plan | None:
        if self._again:
            return self._again.popleft()
        if self.stage == "search":
            before = set(self.sweep.exhausted)
            plan = self.sweep.next_trial()
            for cell in sorted(self.sweep.exhausted - before):
                self.progress.line(f"the search in {cell} is over: {REPEATS_IN_A_ROW} known configurations in a row")
            return plan
        if not self._finalists:
            return None
        plan = self._finalists.popleft()
        self.sweep.begin_finalist(plan)
        return plan

    def _take(self, verdict: Verdict) -> None:
        plan = verdict.assignment.plan
        for retry in verdict.retries:
            self.sweep.retried(plan, retry)
        self.sweep.evaluated(verdict.assignment, verdict.found, verdict.error)
        if verdict.error and self.sweep.state(self.sweep.records[plan.trial_id]) != "failed":
            last = verdict.error.strip().splitlines()[-1]
            self.progress.line(f"{verdict.assignment.measurement.evaluation} of {plan.trial_id[:8]} failed: {last}")
        if self.sweep.is_due(plan):
            self._submit(self.sweep.assignment(plan))
        self._say(self.sweep.records[plan.trial_id])

    def _submit(self, assignment: Assignment) -> None:
        split = self.splits[assignment.measurement.split][assignment.plan.cell]
        self.pool.submit(assignment, split)

    def _say(self, record: Record) -> None:
        """One line about a trial that is over; nothing yet about one that waits for its evaluation."""
        self._update()
        state = self.sweep.state(record)
        if state == "evaluating":
            return
        done = sum(count for name, count in self._counts().items() if name in ("completed", "pruned", "failed"))
        self.progress.line(f"{self.stage} {done}/{self._total()}  {describe(record, state)}")

    def _update(self) -> None:
        began = time.monotonic()
        if began >= self._looks_at:  # at every trial there is
            best = [found[0] for cell in self.sweep.cells if (found := self.sweep.best(cell, 1))]
            self._best = "; ".join(describe(record, "completed") for record in best)
            now = time.monotonic()
            self._looks_at = now + max(SHOWN_EVERY, LOOKING_SHARE * (now - began))
        self.progress.update(self._counts(), self._best)

    def _counts(self) -> dict[str, int]:
        return dict(self.sweep.counts(self.stage))

    def _total(self) -> int:
        return self.sweep.total if self.stage == "search" else self._finalist_total


def describe(record: Record, state: str) -> str:
    """A trial in one line: id, cell, state, the figures it has, and its settings."""
    plan = record.plan
    known = [record.evaluations[name] for name in record.evaluations if base_of(name) in SELECTING]
    figures = known[-1] if known else None
    epochs = max(record.rungs, default=0)
    figures = figures or record.rungs.get(epochs, {})
    words = [plan.trial_id[:8], "" if plan.cell == "all" else plan.cell, state, f"epoch {epochs}"]
    words += [
        f"{label} {figures[name]:.1%}"
        for name, label in (("clean_accuracy", "clean"), ("robust_accuracy", "robust"), ("robust_area", "area"))
        if name in figures
    ]
    words += [
        f"{path}={value:.4g}" if isinstance(value, float) else f"{path}={value}" for path, value in plan.params.items()
    ]
    if state == "failed" and record.ended and record.ended["error"]:
        words.append(str(record.ended["error"]).strip().splitlines()[-1])
    return "  ".join(word for word in words if word)
