"""What the store says of every trial, read once when a run starts: resume and extension are this one path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from orchestrator.lifecycle import DEGENERATE_AT_RUNG, ENDED, REPEAT, TRAINING_ENDED
from orchestrator.measuring import figures
from orchestrator.plan import Plan
from orchestrator.search import Asked
from orchestrator.store import Store


@dataclass
class Record:
    """One trial so far. `ended` is the evidence of its end of training; figures are by evaluation and by rung epoch."""

    plan: Plan
    asked: Asked
    asked_at: Any
    ended: dict[str, Any] | None = None
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    degenerate_rungs: set[int] = field(default_factory=set)
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)
    is_degenerate: bool = False
    parameters: int | None = None  # known from the first rung on


@dataclass(frozen=True)
class Repeat:
    """A suggestion of a configuration that had been suggested before."""

    trial_id: str
    asked: Asked


def read_records(store: Store) -> tuple[dict[str, Record], list[Repeat]]:
    """Every trial on record by id, in the order they were asked for, and the repeats."""
    asks = store.read("asks").sort_values("asked_at", kind="stable")
    records = {str(row["trial_id"]): _record(row) for row in rows_of(asks)}
    repeats = _add_events(records, store.read("events"))
    _add_figures(records, store.read("attacks"), store.read("epochs"))
    return records, repeats


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as mappings."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def asked_to_json(asked: Asked) -> dict[str, str]:
    """The columns of `asks` that hold a suggestion."""
    return {
        "params_json": json.dumps(asked.params, sort_keys=True),
        "distributions_json": json.dumps(asked.distributions, sort_keys=True),
        "sampler_attrs_json": json.dumps(asked.sampler_attrs, sort_keys=True),
    }


def _asked(number: int, row: dict[str, Any]) -> Asked:
    return Asked(
        number,
        json.loads(row["params_json"]),
        json.loads(row["distributions_json"]),
        json.loads(row["sampler_attrs_json"]),
    )


def _record(row: dict[str, Any]) -> Record:
    plan = Plan.from_json(row["config_json"])
    return Record(plan, _asked(plan.number, row), row["asked_at"])


def _add_events(records: dict[str, Record], events: pd.DataFrame) -> list[Repeat]:
    repeats = []
    for row in rows_of(
        events[events["kind"].isin([ENDED, REPEAT, DEGENERATE_AT_RUNG, "doubt:degenerate", TRAINING_ENDED])]
    ):
        record = records.get(row["trial_id"])
        if record is None:
            continue
        if row["kind"] == ENDED:
            record.ended = json.loads(row["evidence"])
        elif row["kind"] == REPEAT:
            said = json.loads(row["evidence"])
            repeats.append(Repeat(row["trial_id"], _asked(said["number"], said)))
        elif row["kind"] == TRAINING_ENDED:
            record.parameters = json.loads(row["evidence"]).get("parameters")
        elif row["kind"] == DEGENERATE_AT_RUNG:
            record.degenerate_rungs.add(json.loads(row["evidence"])["epoch"])
        else:
            record.is_degenerate = True
    return repeats


def _add_figures(records: dict[str, Record], attacks: pd.DataFrame, epochs: pd.DataFrame) -> None:
    trained = epochs.sort_values("epoch").set_index(["trial_id", "epoch"]).groupby(level=0)["seconds"].cumsum()
    groups: Any = attacks.groupby(["trial_id", "evaluation", "epoch"])
    for (trial_id, evaluation, epoch), rows in groups:
        record = records.get(str(trial_id))
        if record is None:
            continue
        found = figures(rows, record.plan.make_threat().eps)
        if evaluation == "rung":
            record.rungs[int(epoch)] = found | {"seconds": float(trained.get((trial_id, epoch), 0.0))}
        else:
            record.evaluations[str(evaluation)] = found
