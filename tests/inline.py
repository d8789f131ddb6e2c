"""The run of a sweep in one process and without Ray: what the cluster does, one step after the other."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from orchestrator.judging import Evaluator
from orchestrator.loading import trainer
from orchestrator.plan import Plan
from orchestrator.rundir import open_run, open_run_directory
from orchestrator.spec import load_spec
from orchestrator.splits import load_test, load_training
from orchestrator.storage.ledger import Ledger
from orchestrator.sweep import Sizes, Sweep
from orchestrator.training import TrainingData

SYNTHETIC: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "synthetic", "validation": 60},
    "threat": {"norm": "linf", "eps": 0.05},
    "matrix": {"defense": [{"name": "standard"}, {"name": "pgd_at", "steps": 2}]},
    "network": {"name": "mlp", "widths": [16]},
    "training": {
        "epochs": 3,
        "batch_size": 32,
        "lr": {"log_uniform": [0.01, 0.2]},
        "weight_decay": {"choice": [0.0, 5e-4]},
    },
    "search": {"trials": 4, "objectives": {"robust_area": "max"}},
    "scheduler": {"grace_epochs": 1, "reduction_factor": 2},
    "evaluation": {
        "rung": {"examples": 24, "attacks": [{"name": "pgd", "steps": 2}]},
        "final": {"examples": 36, "attacks": [{"name": "fgsm"}, {"name": "pgd", "steps": 3}]},
        "test": {"finalists": 1, "seeds": 2, "examples": 30, "attacks": [{"name": "pgd", "steps": 3}]},
    },
}


class Inline:
    """A sweep on synthetic data in `root`; `steps` bounds how many rungs are trained (an interruption)."""

    def __init__(self, root: Path, spec: dict[str, Any] | None = None) -> None:
        self.spec = load_spec(spec or SYNTHETIC)
        self.store = open_run(self.spec, open_run_directory(str(root)))
        cells = {cell.name: cell.dataset_block() for cell in self.spec.cells()}
        self.data = {name: TrainingData(*load_training(block, self.spec.seed)) for name, block in cells.items()}
        self.tests = {name: load_test(block, self.spec.seed) for name, block in cells.items()}
        sizes = {
            name: Sizes(
                f"{data.train.fingerprint}/{data.validation.fingerprint}",
                len(data.validation.labels),
                len(self.tests[name].labels),
            )
            for name, data in self.data.items()
        }
        self.sweep = Sweep(self.spec, self.store, sizes, Ledger(self.store, interval=0))
        self.trained_rungs = 0

    @property
    def root(self) -> Path:
        return Path(self.store.root)

    def run(self, steps: int = 10**9) -> Inline:
        self.left = steps
        for stage in ("search", "finalist"):
            if stage == "finalist" and not self.sweep.is_searched:
                break
            for assignment in self.sweep.unevaluated(stage):
                self._evaluate(assignment)
            finalists = self.sweep.finalists() if stage == "finalist" else []
            while self.left and (plan := finalists.pop(0) if finalists else self._next(stage)) is not None:
                if stage == "finalist":
                    self.sweep.begin_finalist(plan)
                self._train(plan)
        self.sweep.ledger.flush()
        return self

    def _next(self, stage: str) -> Plan | None:
        return self.sweep.next_trial() if stage == "search" else None

    def _train(self, plan: Plan) -> None:
        try:
            told = self.sweep.told(plan)
            worker = trainer(plan, self.sweep.rule(plan.cell), self.data[plan.cell], self.store.files, "cpu", told)
            while True:
                if not self.left:
                    return
                self.left -= 1
                self.trained_rungs += 1
                reached = worker.advance()
                goes_on = self.sweep.reached(plan, reached)
                if reached.is_top or not goes_on:
                    break
        except Exception:
            self.sweep.ended(plan, "failed", traceback.format_exc(), {})
            return
        self.sweep.ended(plan, "completed" if reached.is_top else "pruned", None, worker.facts())
        if reached.is_top and self.sweep.is_due(plan):
            self._evaluate(self.sweep.assignment(plan))

    def _evaluate(self, assignment: Any) -> None:
        """This evaluation of a trial, and the ones that come after it."""
        cell = assignment.plan.cell
        split = self.tests[cell] if assignment.measurement.split == "test" else self.data[cell].validation
        self.sweep.evaluated(assignment, Evaluator(self.store, "cpu").evaluate(assignment, split), None)
        if self.sweep.is_due(assignment.plan):
            self._evaluate(self.sweep.assignment(assignment.plan))
