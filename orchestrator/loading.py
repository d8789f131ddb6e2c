"""A trial whose model exists already: what a trainer does where there is nothing to train."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.lifecycle import TRAINING_ENDED, TRAINING_STARTED, event, key_of
from orchestrator.plan import Plan
from orchestrator.pretrained import is_pretrained, loaded
from orchestrator.rungs import Reached, RungRule
from orchestrator.storage import checkpoints
from orchestrator.storage.files import Files
from orchestrator.told import Record, told_from_json, told_to_json
from orchestrator.training import Trainer, TrainingData


def trainer(
    plan: Plan, rule: RungRule, data: TrainingData, files: Files, device: str, told: Sequence[Record] = ()
) -> Trainer:
    """Who takes a trial from rung to rung."""
    kind = Loader if is_pretrained(plan.defense) else Trainer
    return kind(plan, rule, data, files, device, told)


class Loader(Trainer):
    """One rung, at epoch 0: the model as it is in the file, which then is the trial's checkpoint."""

    def __init__(
        self, plan: Plan, rule: RungRule, data: TrainingData, files: Files, device: str, told: Sequence[Record] = ()
    ) -> None:
        super().__init__(plan, rule, data, files, device, told)
        self.rungs = [0]
        if checkpoints.newest(files, plan.trial_id) is not None:
            self._state, self._facts = checkpoints.load(files, checkpoints.name_of(plan.trial_id, 0))
            for record in told_from_json(self._facts["told"]):
                self._note(*record)

    def advance(self) -> Reached:
        if self.epoch in self._done and self._state is not None and not self._is_told:
            return self._tell()
        began = datetime.now(UTC)
        if self._state is None:
            self._load()
        self._measure()
        trial_id, parameters = self.plan.trial_id, self._facts["parameters"]
        started = event(trial_id, TRAINING_STARTED, {"epoch": 0}, at=began)
        ended = event(trial_id, TRAINING_ENDED, {"epoch": 0, "parameters": parameters})
        self._note("events", key_of(trial_id, "training", began), [started, ended])
        return self._tell()

    def _load(self) -> None:
        clock = time.perf_counter()
        self._state = loaded(self.plan, self.data.train, self.files)
        parameters = sum(tensor.numel() for tensor in self.defense.deployed(self._state).parameters())
        row = {"trial_id": self.plan.trial_id, "epoch": 0, "loss": None, "learning_rate": None}
        rows = [row | {"seconds": time.perf_counter() - clock}]
        told = told_to_json([(*place, rows) for place, rows in self._records.items()])
        self._facts = {"plan": self.plan.to_json(), "parameters": parameters, "rows": rows, "told": told}
        checkpoints.save(self.files, self.plan.trial_id, 0, self._state, self._facts)
