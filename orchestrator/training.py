"""Trains one trial from rung to rung, and writes down what it finds: a plain class, the same with and without Ray."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from defenses import Epoch
from orchestrator.lifecycle import DEGENERATE_AT_RUNG, OUT_OF_MEMORY, TRAINING_ENDED, TRAINING_STARTED, event, key_of
from orchestrator.measuring import measure
from orchestrator.metrics import metrics_of
from orchestrator.peak_memory import forget_peak, peak_memory_bytes
from orchestrator.plan import Plan
from orchestrator.reference_network import data_of, reference
from orchestrator.rungs import Reached, RungRule, degenerate_key, rung_key, rungs
from orchestrator.splits import Split
from orchestrator.storage import checkpoints
from orchestrator.storage.files import Files
from orchestrator.told import Record, Row, Told, told_from_json, told_to_json


@dataclass(frozen=True)
class TrainingData:
    """What a trainer may see: the test split is not part of it."""

    train: Split
    validation: Split


class Trainer:
    """One trial, picked up at its newest checkpoint if there is one.

    It writes checkpoints and nothing else: what is to be recorded is told at each rung. A checkpoint holds all that
    was told before it, so nothing is lost when what was told did not reach the store. `told` are the records of this
    trial that the store has: a rung among them is not measured again.
    """

    def __init__(
        self, plan: Plan, rule: RungRule, data: TrainingData, files: Files, device: str, told: Sequence[Record] = ()
    ) -> None:
        forget_peak(device)  # the worker's: it may have trained a larger one before
        self.plan, self.rule, self.data, self.files, self.device = plan, rule, data, files, device
        self.defense, self.training = plan.make_defense(), plan.make_training()
        self.rungs = rungs(self.training.epochs, rule.grace_epochs, rule.reduction_factor, self.defense.ready_epoch)
        self.epoch = checkpoints.newest(files, plan.trial_id) or 0
        self._epochs: Iterator[Epoch] | None = None
        self._state: Any = None
        self._facts: dict[str, Any] = {}
        self._records = {(table, key): rows for table, key, rows in told}
        self._untold: Told = []
        self._is_told = False
        if self.epoch:
            self._state, self._facts = checkpoints.load(files, checkpoints.name_of(plan.trial_id, self.epoch))
            for record in told_from_json(self._facts["told"]):
                self._note(*record)

    def advance(self) -> Reached:
        """Go to the next rung and measure there; a rung on record is told again, not measured again.

        Raises whatever the defense raises; what was finished before stays on record.
        """
        if self.epoch in self._done and not self._is_told:
            return self._tell()
        began, start = datetime.now(UTC), self.epoch
        if self.epoch == 0 or self.epoch in self._done:
            self._train_to(next(rung for rung in self.rungs if rung > self.epoch))
        self._measure()
        parameters = self._facts["parameters"]
        ended = event(self.plan.trial_id, TRAINING_ENDED, {"epoch": self.epoch, "parameters": parameters})
        started = event(self.plan.trial_id, TRAINING_STARTED, {"epoch": start}, at=began)
        self._note("events", key_of(self.plan.trial_id, "training", began), [started, ended])
        return self._tell()

    @property
    def history(self) -> list[Row]:
        """The rows of `epochs` so far."""
        rows = [row for (table, _), rows in self._records.items() if table == "epochs" for row in rows]
        return sorted((row for row in rows if row["epoch"] <= self.epoch), key=lambda row: row["epoch"])

    @property
    def checkpoint_epoch(self) -> int:
        """The epoch whose model is the trial's: the best rung figure of a model that is not degenerate, or the last."""
        if self.training.keep == "last":
            return self.epoch
        done = self._done
        return max(done, key=lambda epoch: (not self._is_degenerate(epoch), done[epoch], epoch))

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
            if (figure := row.get("robust_accuracy")) is not None
            and figure == figure
            and ("attacks", rung_key(self.plan.trial_id, row["epoch"])) in self._records
        }

    def _is_degenerate(self, epoch: int) -> bool:
        return ("events", degenerate_key(self.plan.trial_id, epoch)) in self._records

    def _train_to(self, rung: int) -> None:
        """Train up to an epoch and keep a checkpoint there, with the rows of the epochs since the last one."""
        self._epochs = self._epochs or self._fit()
        rows: list[Row] = []
        while self.epoch < rung:
            clock = time.perf_counter()
            reached = next(self._epochs)
            self.epoch, self._state = self.epoch + 1, reached.state
            self._note_parts(reached)
            rows.append(
                {"trial_id": self.plan.trial_id, "epoch": self.epoch, "loss": reached.loss}
                | {"learning_rate": reached.learning_rate, "seconds": time.perf_counter() - clock}
            )
        model = self.defense.deployed(self._state)
        parameters = sum(tensor.numel() for tensor in model.parameters())
        told = told_to_json([(*place, rows) for place, rows in self._records.items()])
        self._facts = {"plan": self.plan.to_json(), "parameters": parameters, "rows": rows, "told": told}
        checkpoints.save(self.files, self.plan.trial_id, self.epoch, self._state, self._facts)

    def _note_parts(self, reached: Epoch) -> None:
        """Say that memory ran out and batches are trained in parts, once for each number of parts."""
        key = f"{self.plan.trial_id}.parts.{reached.microbatches}"
        if reached.microbatches > 1 and ("events", key) not in self._records:
            evidence = {"epoch": self.epoch, "microbatches": reached.microbatches, "remarks": list(reached.remarks)}
            self._note("events", key, [event(self.plan.trial_id, OUT_OF_MEMORY, evidence)])

    def _measure(self) -> None:
        """Measure the newest checkpoint, unless its figures are on record, and note the rung."""
        key = rung_key(self.plan.trial_id, self.epoch)
        if ("attacks", key) not in self._records:
            measured = measure(
                self.defense.deployed(self._state),
                self.defense.surface(),
                self.data.validation,
                self.plan,
                self.epoch,
                self.rule.measurement,
                self.device,
            )
            if measured.is_degenerate:
                doubt = event(self.plan.trial_id, DEGENERATE_AT_RUNG, {"epoch": self.epoch})
                self._note("events", degenerate_key(self.plan.trial_id, self.epoch), [doubt])
            self._note("attacks", key, measured.attacks)
        metrics = self._metrics(self.epoch)
        rows = [dict(row) for row in self._facts["rows"]]
        rows[-1] |= {name: metrics[name] for name in ("clean_accuracy", "robust_accuracy")}
        self._note("epochs", key, rows)
        checkpoints.prune(self.files, self.plan.trial_id, keep={self.epoch, self.checkpoint_epoch})

    def _note(self, table: str, key: str, rows: list[Row]) -> None:
        """Have a record told with the next rung, unless the store has it."""
        if (table, key) not in self._records:
            self._records[table, key] = rows
            self._untold.append((table, key, rows))

    def _tell(self) -> Reached:
        told, self._untold, self._is_told = self._untold, [], True
        is_top = self.epoch >= self.rungs[-1]
        return Reached(self.epoch, self._metrics(self.epoch), self._is_degenerate(self.epoch), is_top, told)

    def _metrics(self, epoch: int) -> dict[str, float]:
        rows = self._records["attacks", rung_key(self.plan.trial_id, epoch)]
        return metrics_of(rows, self.plan.make_threat().eps) | {
            "seconds": sum(row["seconds"] for row in self.history),
            "parameters": self._facts["parameters"],
        }

    def _fit(self) -> Iterator[Epoch]:
        train, training = self.data.train, self.training
        draws = self.plan.draws(torch.from_numpy(train.example_ids.copy()))
        if self._state is None and (base := self.plan.base()) is not None:
            found = reference(base, train, self.files, self.device)
            self._note(*found.record)
            training = replace(training, start=found.weights)
        data, network = data_of(train, self.device), self.plan.make_network()
        fitted: Iterator[Epoch] = self.defense.fit(network, data, training, draws, self._state)
        return fitted


def device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
