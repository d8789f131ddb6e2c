"""Writes down what a sweep learns of its trials, each thing once, through the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from orchestrator.holes import text_of
from orchestrator.lifecycle import REPEAT, event, key_of
from orchestrator.plan import Plan
from orchestrator.protocols import Protocols
from orchestrator.records import Record, asked_to_json
from orchestrator.rundir import provenance
from orchestrator.search import Asked
from orchestrator.spec import Spec
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.schemas import PARAM
from orchestrator.storage.store import Store
from orchestrator.told import Told, rows_for
from orchestrator.trials_view import figures, row_from_tables, trial_row


class Recorder:
    """Turns suggestions, what workers tell, and ends into rows; the ledger says when they are written."""

    def __init__(self, spec: Spec, store: Store, ledger: Ledger) -> None:
        self.spec, self.store, self.ledger = spec, store, ledger
        self._provenance = provenance(store)
        self._headlines = Protocols.of(store.files).headlines

    def asked(self, record: Record) -> None:
        """A suggestion that became a trial."""
        self.ledger.append("asks", record.plan.trial_id, [_ask_row(record)])

    def repeated(self, plan: Plan, asked: Asked) -> None:
        """A suggestion of a trial that is there already."""
        now, evidence = datetime.now(UTC), {"number": asked.number, **asked_to_json(asked)}
        row = event(plan.trial_id, REPEAT, evidence, at=now)
        self.ledger.append("events", key_of(plan.trial_id, REPEAT, now), [row])

    def note(self, record: Record, told: Told) -> None:
        """What was told of a trial; the record keeps it until the trial's row is written."""
        known = {(table, key) for table, key, _ in record.told}
        for entry in told:
            self.ledger.append(*entry)
            if entry[:2] not in known:
                record.told.append(entry)

    def over(self, record: Record) -> None:
        """Derive the trial's row of `trials` from its rows of the other tables, unless it is written."""
        if not self.ledger.has("trials", record.plan.trial_id):
            epochs, attacks, events = (rows_for(record.told, table) for table in ("epochs", "attacks", "events"))
            row = trial_row(_ask_row(record), epochs, attacks, events, record.figures, self._headlines)
            row |= {"sweep": self.spec.name, **self._provenance, **self._text_settings(record)}
            self.ledger.append("trials", record.plan.trial_id, [row])
        record.told = []

    def refresh(self, record: Record) -> None:
        """Replace the trial's row by one that knows of an evaluation that was added; its code stays what it was."""
        self.ledger.flush()
        trial_id = record.plan.trial_id
        tables = {name: self.store.read_trial(name, trial_id) for name in ("epochs", "attacks", "examples", "events")}
        row = row_from_tables(_ask_row(record), **tables, headlines=self._headlines)
        there = self.store.record("trials", trial_id)
        known = {} if there is None else there.select(list(self._provenance)).to_pylist()[0]
        row |= {"sweep": self.spec.name, **self._provenance, **known, **self._text_settings(record)}
        self.store.replace("trials", trial_id, [row])
        record.told = []

    def refresh_stale(self, records: Iterable[Record]) -> None:
        """Replace the rows that do not say what is on record: of a driver that died between the two."""
        rows = self.store.read("trials", ["trial_id", "evaluation", "revision"])
        said = {
            trial_id: (evaluation if isinstance(evaluation, str) else None, revision)
            for trial_id, evaluation, revision in zip(*(rows[name] for name in rows), strict=True)
        }
        for record in records:
            headline = next((name for name in self._headlines if name in record.evaluations), None)
            now = headline, len(record.evaluations)
            if said.get(record.plan.trial_id, now) != now:
                self.refresh(record)

    def over_before(self, record: Record) -> None:
        """The same for a trial that was over when an earlier driver died: its figures are in the store."""
        if not self.ledger.has("trials", record.plan.trial_id):
            record.figures = self._recorded_figures(record)
            self.over(record)

    def _recorded_figures(self, record: Record) -> dict[str, Any]:
        """The figures of every evaluation of a trial, from the rows of its examples."""
        if not record.evaluations:
            return {}
        attacks, examples = (self.store.read_trial(table, record.plan.trial_id) for table in ("attacks", "examples"))
        eps = record.plan.threat["eps"]
        return {name: figures(attacks, examples, name, eps) for name in record.evaluations}

    def _text_settings(self, record: Record) -> dict[str, str]:
        """Settings whose column is text because cells give the same path values of different types."""
        columns = self.store.param_columns
        return {PARAM + path: text_of(value) for path, value in record.plan.params.items() if columns[path] == "string"}


def _ask_row(record: Record) -> dict[str, Any]:
    plan = record.plan
    return {
        "trial_id": plan.trial_id, "number": plan.number, "cell": plan.cell, "config_json": plan.to_json(),
        "asked_at": record.asked_at, **asked_to_json(record.asked),
    }  # fmt: skip
