"""What the store says of every trial, read once when a run starts: resume and extension are this one path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from orchestrator.lifecycle import (
    DEGENERATE_AT_RUNG,
    ENDED,
    REPEAT,
    RETRY,
    SILENT,
    TRAINING_ENDED,
    counts_for_selection,
    doubted,
)
from orchestrator.metrics import metrics_of
from orchestrator.plan import Plan
from orchestrator.rungs import degenerate_key, rung_key
from orchestrator.search import Asked
from orchestrator.storage.store import Store
from orchestrator.told import Row, Told, rows_for
from orchestrator.trials_view import DOUBT, rows_of

RUNG = "rung"


@dataclass
class Record:
    """One trial so far. `ended` is the evidence of its end of training; metrics are by evaluation and by rung epoch.

    `told` are its records in the store, as long as its row of `trials` is not written; `figures` are for that row.
    """

    plan: Plan
    asked: Asked
    asked_at: Any
    ended: dict[str, Any] | None = None
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    degenerate_rungs: set[int] = field(default_factory=set)
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_degenerate: bool = False
    parameters: int | None = None  # known from the first rung on
    given_up: set[str] = field(default_factory=set)  # evaluations beside that failed, until the next run
    hangs: int = 0  # how often its worker was ended for its silence
    told: Told = field(default_factory=list)
    counted_as: str = ""  # the state under which the sweep counts it
    reopened: dict[str, Any] | None = None  # how it had ended, where rows of it were lost that its worker tells again


@dataclass(frozen=True)
class Repeat:
    """A suggestion of a configuration that had been suggested before."""

    trial_id: str
    asked: Asked


def read_records(store: Store) -> tuple[dict[str, Record], list[Repeat]]:
    """Every trial on record by id, in the order they were asked for, and the repeats."""
    asks = store.read("asks").sort_values("asked_at", kind="stable")
    records = {str(row["trial_id"]): _record(row) for row in rows_of(asks)}
    events, epochs, attacks = (rows_of(store.read(table)) for table in ("events", "epochs", "attacks"))
    judged = store.keys("examples")
    attacks = [
        row for row in attacks if row["evaluation"] == RUNG or f"{row['trial_id']}.{row['evaluation']}" in judged
    ]
    broken = _broken(epochs, attacks)
    over = set(store.read("trials", ["trial_id"])["trial_id"]) - broken
    repeats = _add_events(records, events, over)
    _add_figures(records, attacks, epochs, over)
    for record in records.values():
        if record.plan.trial_id in broken and record.ended and record.ended["status"] in ("completed", "pruned"):
            record.reopened, record.ended = record.ended, None
    return records, repeats


def take_in(record: Record, told: Told) -> None:
    """Let a record know of records that were not told by a worker of this run but taken from another one."""
    events, epochs, attacks = (rows_for(told, table) for table in ("events", "epochs", "attacks"))
    known = {record.plan.trial_id: record}
    _add_events(known, events, set(known))
    _add_figures(known, attacks, epochs, set(known))


def suggestions(records: Mapping[str, Record], repeats: Iterable[Repeat]) -> list[tuple[Asked, Record]]:
    """Every recorded suggestion of the search with its trial, in order of number.

    Of the trials of one configuration, which say the same suggestion, it is the first.
    """
    searched = {trial_id: record for trial_id, record in records.items() if record.plan.stage == "search"}
    firsts: dict[tuple[str, int], Record] = {}
    for record in searched.values():
        place = record.plan.cell, record.asked.number
        if place not in firsts or record.plan.seed < firsts[place].plan.seed:
            firsts[place] = record
    asks = [(record.asked, record) for record in firsts.values()]
    asks += [(repeat.asked, searched[repeat.trial_id]) for repeat in repeats if repeat.trial_id in searched]
    return sorted(asks, key=lambda pair: pair[0].number)


def is_lacking(asks: Iterable[tuple[Asked, Record]]) -> bool:
    """Whether suggestions were lost with a damaged part: their numbers are missing."""
    numbers: dict[str, list[int]] = {}
    for asked, record in asks:
        numbers.setdefault(record.plan.cell, []).append(asked.number)
    return any(found != list(range(len(found))) for found in numbers.values())


def _broken(epochs: list[Row], attacks: list[Row]) -> set[str]:
    """The trials of which rows are lost: epochs that are missing, rungs without attacks, attacks without a rung.

    A driver that was killed may leave that too, of trials that were under way.
    """
    trained: dict[str, set[int]] = {}
    rungs: dict[str, set[int]] = {}
    attacked: dict[str, set[int]] = {}
    for row in epochs:
        trained.setdefault(row["trial_id"], set()).add(row["epoch"])
        if is_rung(row):
            rungs.setdefault(row["trial_id"], set()).add(row["epoch"])
    for row in attacks:
        if row["evaluation"] == RUNG:
            attacked.setdefault(row["trial_id"], set()).add(row["epoch"])
    return {
        trial_id
        for trial_id in trained.keys() | attacked.keys()
        if rungs.get(trial_id) != attacked.get(trial_id)
        or trained[trial_id] - {0} != set(range(1, max(rungs[trial_id]) + 1))
    }


def _key_of(row: Row) -> str:
    """What the evaluation is called that a row of `attacks` is of."""
    return f"{row['trial_id']}.{row['evaluation']}"


def is_rung(row: Row) -> bool:
    """Whether a row of `epochs` has the figures of a rung."""
    return row["robust_accuracy"] is not None and row["robust_accuracy"] == row["robust_accuracy"]


def asked_to_json(asked: Asked) -> dict[str, str]:
    """The columns of `asks` that hold a suggestion."""
    return {
        "params_json": json.dumps(asked.params, sort_keys=True),
        "distributions_json": json.dumps(asked.distributions, sort_keys=True),
        "sampler_attrs_json": json.dumps(asked.sampler_attrs, sort_keys=True),
    }


def _asked(number: int, row: Row) -> Asked:
    return Asked(
        number,
        json.loads(row["params_json"]),
        json.loads(row["distributions_json"]),
        json.loads(row["sampler_attrs_json"]),
    )


def _record(row: Row) -> Record:
    plan = Plan.from_json(row["config_json"])
    return Record(plan, _asked(plan.number, row), row["asked_at"])


def _add_events(records: dict[str, Record], events: Iterable[Row], over: set[str]) -> list[Repeat]:
    repeats = []
    for row in sorted(events, key=lambda row: row["at"]):
        if row["kind"] == REPEAT:  # also one of a trial whose own suggestion was lost
            said = json.loads(row["evidence"])
            repeats.append(Repeat(row["trial_id"], _asked(said["number"], said)))
        record = records.get(row["trial_id"])
        if record is None:
            continue
        key = ""
        if row["kind"] == ENDED:
            record.ended = json.loads(row["evidence"])
        elif row["kind"] == TRAINING_ENDED:
            record.parameters = json.loads(row["evidence"]).get("parameters")
        elif row["kind"] == DEGENERATE_AT_RUNG:
            epoch = json.loads(row["evidence"])["epoch"]
            record.degenerate_rungs.add(epoch)
            key = degenerate_key(row["trial_id"], epoch)
        elif row["kind"].startswith(DOUBT):
            is_degenerate = row["kind"] == f"{DOUBT}degenerate" and counts_for_selection(row["evidence"])
            record.is_degenerate = record.is_degenerate or is_degenerate
            evaluation = doubted(row["evidence"]) or ("final" if record.plan.stage == "search" else "test")
            key = f"{row['trial_id']}.{evaluation}.doubts"
        elif row["kind"] == RETRY and row["evidence"].startswith(SILENT):
            record.hangs += 1
        if row["trial_id"] not in over:
            record.told.append(("events", key, [row]))
    return repeats


def _add_figures(records: dict[str, Record], attacks: list[Row], epochs: list[Row], over: set[str]) -> None:
    seconds = _add_epochs(records, epochs, over)

    def which(row: Row) -> tuple[str, str, int]:
        return row["trial_id"], row["evaluation"], row["epoch"]

    for (trial_id, evaluation, epoch), group in groupby(sorted(attacks, key=which), key=which):
        record, rows = records.get(trial_id), list(group)
        if record is None:
            continue
        found = metrics_of(rows, record.plan.threat["eps"])
        if evaluation == RUNG:
            record.rungs[epoch] = found | {"seconds": seconds.get((trial_id, epoch), 0.0)}
        else:
            record.evaluations[evaluation] = found
        if trial_id not in over:
            key = rung_key(trial_id, epoch) if evaluation == RUNG else _key_of(rows[0])
            record.told.append(("attacks", key, rows))


def _add_epochs(records: dict[str, Record], epochs: list[Row], over: set[str]) -> dict[tuple[str, int], float]:
    """Note the rows, those up to a rung under its key; -> the seconds each trial had trained by each epoch."""
    seconds: dict[tuple[str, int], float] = {}

    def whose(row: Row) -> str:
        return str(row["trial_id"])

    for trial_id, group in groupby(sorted(epochs, key=lambda row: (row["trial_id"], row["epoch"])), key=whose):
        total, rows = 0.0, list[Row]()
        for row in group:
            total += row["seconds"]
            seconds[trial_id, row["epoch"]] = total
            rows.append(row)
            if is_rung(row) and trial_id in records and trial_id not in over:
                records[trial_id].told.append(("epochs", rung_key(trial_id, row["epoch"]), rows))
                rows = []
    return seconds
