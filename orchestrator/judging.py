"""Evaluates the checkpoint of a finished trial: a plain class, the same with and without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator import checkpoints
from orchestrator.files import open_files
from orchestrator.lifecycle import EVALUATION_ENDED, EVALUATION_STARTED, event, key_of
from orchestrator.measuring import Measurement, figures, measure
from orchestrator.plan import Plan
from orchestrator.splits import Split
from orchestrator.store import Store


@dataclass(frozen=True)
class Assignment:
    """One model to evaluate: the checkpoint of a trial at an epoch, and what to measure. `id` names its records."""

    plan: Plan
    epoch: int
    measurement: Measurement

    @property
    def id(self) -> str:
        return f"{self.plan.trial_id}.{self.measurement.evaluation}"


class Evaluator:
    """Works on one device, one assignment at a time."""

    def __init__(self, store: Store, device: str) -> None:
        self.store, self.device = store, device

    def evaluate(self, assignment: Assignment, split: Split) -> dict[str, Any]:
        """Measure, record, and give the figures and whether the model is degenerate.

        The rows of `attacks` come last and say that the evaluation is done: one that is on record is not done
        again, one that was cut off is.
        """
        plan, what = assignment.plan, assignment.measurement
        if not self.store.has("attacks", assignment.id):
            began = datetime.now(UTC)
            defense = plan.make_defense()
            files, name = open_files(self.store.root), checkpoints.name_of(plan.trial_id, assignment.epoch)
            state, _ = checkpoints.load(files, name)
            model, surface = defense.deployed(state), defense.surface()
            measured = measure(model, surface, split, plan, assignment.epoch, what, self.device)
            evidence = {"evaluation": what.evaluation}
            events = [
                event(plan.trial_id, EVALUATION_STARTED, evidence, at=began),
                event(plan.trial_id, EVALUATION_ENDED, evidence),
            ]
            doubts = [
                event(plan.trial_id, f"doubt:{doubt.kind}", doubt.evidence, doubt.severity) for doubt in measured.doubts
            ]
            self.store.append("events", key_of(plan.trial_id, "evaluation", began), events)
            if not self.store.has("attacks", assignment.id):  # nobody was faster
                self.store.replace("examples", assignment.id, measured.examples)
                if doubts:
                    self.store.replace("events", f"{assignment.id}.doubts", doubts)
                self.store.append("attacks", assignment.id, measured.attacks)
        return self._on_record(assignment)

    def _on_record(self, assignment: Assignment) -> dict[str, Any]:
        plan, name = assignment.plan, assignment.measurement.evaluation
        rows = self.store.read_trial("attacks", plan.trial_id)
        events = self.store.read_trial("events", plan.trial_id)
        metrics = figures(rows[rows["evaluation"] == name], plan.make_threat().eps)
        return {"metrics": metrics, "is_degenerate": bool((events["kind"] == "doubt:degenerate").any())}
