"""Work that does nothing, or sleeps: what is left of a sweep's time is the orchestrator's own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.lifecycle import (
    EVALUATION_ENDED,
    EVALUATION_STARTED,
    TRAINING_ENDED,
    TRAINING_STARTED,
    event,
    key_of,
)
from orchestrator.measurement import Assignment, Found
from orchestrator.metrics import metrics_of
from orchestrator.plan import Plan
from orchestrator.rungs import Reached, rung_key
from orchestrator.storage.store import Store
from orchestrator.told import Row, Told

N = 10  # images that an evaluation is said to have looked at


@dataclass(frozen=True)
class TrivialWork:
    """Trainer and evaluator without torch. Their figures are made from the trial's parameters."""

    store: Store
    train_seconds: float = 0.0
    attack_seconds: float = 0.0

    def load_modules(self) -> None:
        """There are none."""

    def trainer(self, plan: Plan, told: Told, load: Callable[[], Any], has_gpu: bool) -> TrivialTrainer:
        return TrivialTrainer(plan, self.train_seconds)

    def evaluator(self, has_gpu: bool) -> TrivialEvaluator:
        return TrivialEvaluator(self.store, self.attack_seconds)


@dataclass(frozen=True)
class TrivialTrainer:
    """One rung, the top."""

    plan: Plan
    seconds: float

    def advance(self) -> Reached:
        began, trial_id = datetime.now(UTC), self.plan.trial_id
        time.sleep(self.seconds)
        attacks = attack_rows(self.plan, "rung", 1)
        metrics = metrics_of(attacks, self.plan.threat["eps"])
        epoch = {"trial_id": trial_id, "epoch": 1, "loss": 0.0, "learning_rate": 0.1, "seconds": self.seconds}
        epoch |= {name: metrics[name] for name in ("clean_accuracy", "robust_accuracy")}
        events = [
            event(trial_id, TRAINING_STARTED, {"epoch": 0}, at=began),
            event(trial_id, TRAINING_ENDED, {"epoch": 1, "parameters": 1}),
        ]
        told = [
            ("attacks", rung_key(trial_id, 1), attacks),
            ("epochs", rung_key(trial_id, 1), [epoch]),
            ("events", key_of(trial_id, "training", began), events),
        ]
        return Reached(1, metrics | {"seconds": self.seconds, "parameters": 1.0}, False, True, told)

    def facts(self) -> dict[str, Any]:
        return {
            "parameters": 1, "checkpoint": None, "checkpoint_epoch": 1, "host": socket.gethostname(), "device": "cpu",
            "peak_memory_bytes": 0, "train_seconds": self.seconds, "gpu_seconds": 0.0,
        }  # fmt: skip


@dataclass(frozen=True)
class TrivialEvaluator:
    """Every evaluation is three rows of `attacks` and three of `examples`."""

    store: Store
    seconds: float

    def evaluate(self, assignment: Assignment, split: Any) -> Found:
        began, plan, name = datetime.now(UTC), assignment.plan, assignment.measurement.evaluation
        time.sleep(self.seconds)
        attacks = attack_rows(plan, name, assignment.epoch)
        self.store.replace("examples", assignment.id, [example_row(row) for row in attacks])
        metrics = metrics_of(attacks, plan.threat["eps"])
        figures = {"n": N, **metrics, "robust_ci_low": 0.0, "robust_ci_high": 1.0}
        events = [
            event(plan.trial_id, EVALUATION_STARTED, {"evaluation": name}, at=began),
            event(plan.trial_id, EVALUATION_ENDED, {"evaluation": name}),
        ]
        told = [
            ("events", key_of(plan.trial_id, "evaluation", began), events),
            ("attacks", assignment.id, attacks),
        ]
        return Found(metrics, figures, False, told)


def attack_rows(plan: Plan, evaluation: str, epoch: int) -> list[Row]:
    """One attack at eps/4, eps/2 and eps; the robust accuracy is a figure of the trial's id."""
    robust = int(plan.trial_id[:6], 16) / 16**6
    row = {
        "trial_id": plan.trial_id, "epoch": epoch, "evaluation": evaluation, "split": "validation",
        "attack": "none", "attack_id": "0", "position": 0, "norm": plan.threat["norm"], "attack_json": "{}",
        "n": N, "n_attacked": N, "n_fooled": 0, "clean_accuracy": 0.9, "robust_accuracy": robust,
        "ci_low": 0.0, "ci_high": 1.0, "forward_passes": 0.0, "backward_passes": 0.0, "seconds": 0.0,
    }  # fmt: skip
    return [row | {"eps": plan.threat["eps"] * part} for part in (0.25, 0.5, 1.0)]


def example_row(attack: Row) -> Row:
    names = ("trial_id", "epoch", "evaluation", "split", "attack", "attack_id", "norm", "eps")
    return {name: attack[name] for name in names} | {
        "example_id": 0, "label": 0, "clean_prediction": 0, "adversarial_prediction": 0, "robust": True,
    }  # fmt: skip
