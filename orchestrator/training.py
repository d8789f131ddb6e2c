"""Trains one trial from rung to rung, and writes down what it finds: a plain class, the same with and without Ray."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from defenses import Data, Epoch
from orchestrator import checkpoints
from orchestrator.asha import rungs
from orchestrator.files import open_files
from orchestrator.lifecycle import DEGENERATE_AT_RUNG, TRAINING_ENDED, TRAINING_STARTED, event, key_of
from orchestrator.measuring import Measurement, Row, figures, measure
from orchestrator.plan import Plan
from orchestrator.records import rows_of
from orchestrator.splits import Split
from orchestrator.store import Store


@dataclass(frozen=True)
class TrainingData:
    """What a trainer may see: the test split is not part of it."""

    train: Split
    validation: Split


@dataclass(frozen=True)
class RungRule:
    """When trials are compared, and by what measurement."""

    measurement: Measurement
    grace_epochs: int
    reduction_factor: float


@dataclass(frozen=True)
class Reached:
    """A trial at a rung: the epoch, its figures there, and whether that was the last one."""

    epoch: int
    metrics: dict[str, float]
    is_degenerate: bool
    is_top: bool


class Trainer:
    """One trial, picked up at its newest checkpoint if there is one.

    At each rung: the checkpoint first, then the rung's `attacks` rows, last the `epochs` rows, which say that the
    rung is done. Killed anywhere in between, a second Trainer redoes only what is missing.
    """

    def __init__(self, plan: Plan, rule: RungRule, data: TrainingData, store: Store, device: str) -> None:
        self.plan, self.rule, self.data, self.store, self.device = plan, rule, data, store, device
        self.defense, self.training = plan.make_defense(), plan.make_training()
        self.rungs = rungs(self.training.epochs, rule.grace_epochs, rule.reduction_factor, self.defense.ready_epoch)
        self.history: list[Row] = rows_of(store.read_trial("epochs", plan.trial_id))
        self._told: set[int] = set()
        events = store.read_trial("events", plan.trial_id)
        noted = events.loc[events["kind"] == DEGENERATE_AT_RUNG, "evidence"]
        self._degenerate: set[int] = {json.loads(text)["epoch"] for text in noted}
        self._epochs: Iterator[Epoch] | None = None
        self.files = open_files(store.root)
        self.epoch = checkpoints.newest(self.files, plan.trial_id) or 0
        self._state: Any = None
        self._facts: dict[str, Any] = {}
        if self.epoch:
            self._state, self._facts = self._load(self.epoch)

    def advance(self) -> Reached:
        """Go to the next rung and measure there; a rung on record is told again, not measured again.

        Raises whatever the defense raises; what was finished before stays on record.
        """
        if self.epoch in self._done and self.epoch not in self._told:
            return self._tell()
        began, start = datetime.now(UTC), self.epoch
        if self.epoch == 0 or self.epoch in self._done:
            self._train_to(next(rung for rung in self.rungs if rung > self.epoch))
        self._measure()
        parameters = self._facts["parameters"]
        ended = event(self.plan.trial_id, TRAINING_ENDED, {"epoch": self.epoch, "parameters": parameters})
        started = event(self.plan.trial_id, TRAINING_STARTED, {"epoch": start}, at=began)
        self.store.append("events", key_of(self.plan.trial_id, "training", began), [started, ended])
        return self._tell()

    @property
    def checkpoint_epoch(self) -> int:
        """The epoch whose model is the trial's: the best rung figure of a model that is not degenerate, or the last."""
        if self.training.keep == "last":
            return self.epoch
        return max(self._done, key=lambda epoch: (epoch not in self._degenerate, self._done[epoch], epoch))

    def facts(self) -> dict[str, Any]:
        """What the trial's row says of its training."""
        seconds = sum(row["seconds"] for row in self.history)
        kept = self.checkpoint_epoch
        return {
            "parameters": self._facts["parameters"],
            "checkpoint": checkpoints.name_of(self.plan.trial_id, kept),
            "checkpoint_epoch": kept,
            "host": socket.gethostname(),
            "device": device_name(self.device),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "train_seconds": seconds,
            "gpu_seconds": seconds if self.device != "cpu" else 0.0,
        }

    @property
    def _done(self) -> dict[int, float]:
        """The robust accuracy at each rung on record, by epoch."""
        return {
            row["epoch"]: row["robust_accuracy"]
            for row in self.history
            if row.get("robust_accuracy") is not None and row["robust_accuracy"] == row["robust_accuracy"]
        }

    def _train_to(self, rung: int) -> None:
        """Train up to an epoch and keep a checkpoint there, with the rows of the epochs since the last one."""
        self._epochs = self._epochs or self._fit()
        rows: list[Row] = []
        while self.epoch < rung:
            clock = time.perf_counter()
            reached = next(self._epochs)
            self.epoch, self._state = self.epoch + 1, reached.state
            rows.append(
                {"trial_id": self.plan.trial_id, "epoch": self.epoch, "loss": reached.loss}
                | {"learning_rate": reached.learning_rate, "seconds": time.perf_counter() - clock}
            )
        model = self.defense.deployed(self._state)
        parameters = sum(tensor.numel() for tensor in model.parameters())
        self._facts = {"plan": self.plan.to_json(), "parameters": parameters, "rows": rows}
        checkpoints.save(self.files, self.plan.trial_id, self.epoch, self._state, self._facts)

    def _measure(self) -> None:
        """Measure the newest checkpoint, unless its figures are on record, and record the rung."""
        key = f"{self.plan.trial_id}.rung.{self.epoch:05d}"
        if not self.store.has("attacks", key):
            model = self.defense.deployed(self._state)
            measured = measure(
                model,
                self.defense.surface(),
                self.data.validation,
                self.plan,
                self.epoch,
                self.rule.measurement,
                self.device,
            )
            if measured.is_degenerate:
                doubt = event(self.plan.trial_id, DEGENERATE_AT_RUNG, {"epoch": self.epoch})
                self.store.append("events", f"{key}.degenerate", [doubt])
                self._degenerate.add(self.epoch)
            self.store.append("attacks", key, measured.attacks)
        metrics = self._metrics(self.epoch)
        rows = [dict(row) for row in self._facts["rows"]]
        rows[-1] |= {name: metrics[name] for name in ("clean_accuracy", "robust_accuracy")}
        self.store.append("epochs", key, rows)
        self.history += rows
        checkpoints.prune(self.files, self.plan.trial_id, keep={self.epoch, self.checkpoint_epoch})

    def _tell(self) -> Reached:
        self._told.add(self.epoch)
        is_degenerate = self.epoch in self._degenerate
        return Reached(self.epoch, self._metrics(self.epoch), is_degenerate, self.epoch >= self.rungs[-1])

    def _metrics(self, epoch: int) -> dict[str, float]:
        rows = self.store.read_trial("attacks", self.plan.trial_id)
        rows = rows[(rows["evaluation"] == self.rule.measurement.evaluation) & (rows["epoch"] == epoch)]
        seconds = sum(row["seconds"] for row in self.history)
        return figures(rows, self.plan.make_threat().eps) | {
            "seconds": seconds,
            "parameters": self._facts["parameters"],
        }

    def _load(self, epoch: int) -> tuple[Any, dict[str, Any]]:
        return checkpoints.load(self.files, checkpoints.name_of(self.plan.trial_id, epoch))

    def _fit(self) -> Iterator[Epoch]:
        train = self.data.train
        images = torch.from_numpy(train.images.copy()).to(self.device)
        labels = torch.from_numpy(train.labels.copy()).to(self.device)
        draws = self.plan.draws(torch.from_numpy(train.example_ids.copy()))
        data = Data(images, labels, train.classes)
        fitted: Iterator[Epoch] = self.defense.fit(self.plan.make_network(), data, self.training, draws, self._state)
        return fitted


def peak_memory_bytes(device: str) -> int:
    """The most memory used so far: on a GPU by tensors, else by the whole process."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
