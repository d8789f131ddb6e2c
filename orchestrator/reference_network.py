"""The network that trials start from (`base` in a spec): trained once, found again by its content.

Its checkpoint lies beside those of trials, under an id made as theirs are. One worker trains it, the others wait; the
hold of one that dies is free, and the next goes on from its newest checkpoint. Where nobody can hold anything, it may
be trained twice: to no harm, since the same content gives the same network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from defenses import Data
from defenses.state import network_of
from orchestrator.errors import UserError
from orchestrator.lifecycle import BASE_TRAINED, event
from orchestrator.plan import Plan
from orchestrator.splits import Split
from orchestrator.storage import checkpoints
from orchestrator.storage.files import Files
from orchestrator.storage.hold import HeldByAnother, holding
from orchestrator.told import Record, told_from_json, told_to_json

HOLDS = ".bases"  # hidden: readers of the run directory pass it by
LOOK = 1.0  # seconds between two looks at what another worker trains
SAVE = 30.0  # seconds of training after which a checkpoint is worth its writing


@dataclass(frozen=True)
class Reference:
    """Weights and buffers of the network, and the record of its training, which is told by all who start from it."""

    weights: dict[str, Tensor]
    record: Record


def reference(
    plan: Plan, train: Split, files: Files, device: str, pause: Callable[[float], None] = time.sleep
) -> Reference:
    """The trained network of a base's plan, from the store or trained here. Raises whatever its training raises."""
    name = checkpoints.name_of(plan.trial_id, plan.make_training().epochs)
    while not checkpoints.is_sound(files, name):
        with ExitStack() as held:
            if not _is_mine(plan, files, held):
                pause(LOOK)
            elif not checkpoints.is_sound(files, name):
                _train(plan, train, files, device)
    state, facts = checkpoints.load(files, name)
    (record,) = told_from_json(facts["told"])
    return Reference(network_of(state), record)


def data_of(train: Split, device: str) -> Data:
    """The training split as a defense is handed it."""
    images = torch.from_numpy(train.images.copy()).to(device)
    labels = torch.from_numpy(train.labels.copy()).to(device)
    return Data(images, labels, train.classes)


def _is_mine(plan: Plan, files: Files, held: ExitStack) -> bool:
    """Whether this worker is the one to train it, for as long as `held` lasts."""
    files.make_directory(HOLDS)
    try:
        held.enter_context(holding(files, f"{HOLDS}/{plan.trial_id}", "worker"))
    except HeldByAnother:
        return False
    except UserError:
        return True  # a disk that cannot lock files
    return True


def _train(plan: Plan, train: Split, files: Files, device: str) -> None:
    """To the end, from the newest checkpoint there is."""
    epoch, state, seconds = checkpoints.newest(files, plan.trial_id) or 0, None, 0.0
    if epoch:
        state, facts = checkpoints.load(files, checkpoints.name_of(plan.trial_id, epoch))
        seconds = facts["seconds"]
    training, data = plan.make_training(), data_of(train, device)
    draws = plan.draws(torch.from_numpy(train.example_ids.copy()))
    saved, clock = epoch, time.perf_counter()
    for reached in plan.make_defense().fit(plan.make_network(), data, training, draws, state):
        epoch += 1
        spent = time.perf_counter() - clock
        if spent > SAVE or epoch == training.epochs:
            seconds, clock = seconds + spent, time.perf_counter()
            checkpoints.save(files, plan.trial_id, epoch, reached.state, _facts(plan, epoch, seconds))
            checkpoints.forget(files, plan.trial_id, saved)
            saved = epoch


def _facts(plan: Plan, epochs: int, seconds: float) -> dict[str, Any]:
    evidence = {"defense": plan.defense["name"], "epochs": epochs, "seconds": round(seconds, 3), "seed": plan.seed}
    row = event(plan.trial_id, BASE_TRAINED, evidence)
    told = told_to_json([("events", f"{plan.trial_id}.base", [row])])
    return {"plan": plan.to_json(), "seconds": seconds, "told": told}
