"""Evaluates the checkpoint of a finished trial: a plain class, the same with and without Ray."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.lifecycle import EVALUATION_ENDED, EVALUATION_STARTED, doubt_evidence, event, key_of
from orchestrator.measurement import Assignment, Found
from orchestrator.measuring import Measured, measure
from orchestrator.splits import Split
from orchestrator.storage import checkpoints
from orchestrator.storage.store import Store
from orchestrator.told import Told
from orchestrator.trials_view import figures


class Evaluator:
    """Works on one device, one assignment at a time."""

    def __init__(self, store: Store, device: str) -> None:
        self.store, self.device = store, device

    def evaluate(self, assignment: Assignment, split: Split) -> Found:
        """Measure, write the rows of `examples`, and tell the rest.

        The rows of `attacks`, which the driver writes, say that the evaluation is done: one that was cut off before is
        done again, and its examples are written in the place of those that are there.
        """
        plan, what = assignment.plan, assignment.measurement
        began = datetime.now(UTC)
        defense = plan.make_defense()
        state, _ = checkpoints.load(self.store.files, checkpoints.name_of(plan.trial_id, assignment.epoch))
        measured = measure(defense.deployed(state), defense.surface(), split, plan, assignment.epoch, what, self.device)
        self.store.replace("examples", assignment.id, measured.examples)
        told = _told(assignment, measured, began)
        return Found(measured.metrics, self._figures(assignment, measured), measured.is_degenerate, told)

    def _figures(self, assignment: Assignment, measured: Measured) -> dict[str, Any]:
        """Those of the trial's row, from the rows as they will be read."""
        attacks, examples = (
            self.store.to_table(table, rows).to_pandas()
            for table, rows in (("attacks", measured.attacks), ("examples", measured.examples))
        )
        return figures(attacks, examples, assignment.measurement.evaluation, assignment.plan.make_threat().eps)


def _told(assignment: Assignment, measured: Measured, began: datetime) -> Told:
    trial_id, what = assignment.plan.trial_id, assignment.measurement
    evidence = {"evaluation": what.evaluation}
    events = [
        event(trial_id, EVALUATION_STARTED, evidence, at=began),
        event(trial_id, EVALUATION_ENDED, evidence),
    ]
    doubts = [
        event(trial_id, f"doubt:{doubt.kind}", doubt_evidence(what.evaluation, doubt.evidence), doubt.severity)
        for doubt in measured.doubts
    ]
    return [
        ("events", key_of(trial_id, "evaluation", began), events),
        *([("events", f"{assignment.id}.doubts", doubts)] if doubts else []),
        ("attacks", assignment.id, measured.attacks),
    ]
