"""Takes over what another run of the store has computed of a trial: nothing is trained twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from orchestrator.cascade import stages
from orchestrator.lifecycle import (
    DEGENERATE_AT_RUNG,
    ENDED,
    EVALUATION_ENDED,
    EVALUATION_STARTED,
    OUT_OF_MEMORY,
    REUSED,
    TRAINING_ENDED,
    TRAINING_STARTED,
    event,
    key_of,
)
from orchestrator.measurement import Measurement
from orchestrator.metrics import AREA_FRACTIONS
from orchestrator.plan import Plan
from orchestrator.records import is_rung
from orchestrator.rungs import RungRule, degenerate_key, rung_key, rungs
from orchestrator.siblings import UNREADABLE, Sibling, Siblings, readable
from orchestrator.storage import checkpoints
from orchestrator.storage.store import Store
from orchestrator.told import Row, Told
from orchestrator.trials_view import DOUBT, RUNG, figures, rows_of


@dataclass(frozen=True)
class Taken:
    """What goes on record of a trial, and what an evaluation that is among it gives for the trial's row."""

    told: Told
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)


def take(plan: Plan, rule: RungRule, final: Measurement | None, siblings: Siblings, store: Store) -> Taken | None:
    """What another run has computed of a trial, its checkpoints copied into `store`; None: it must be trained.

    That run must have finished it, be whole, and have compared it at the same rungs by the same measurement. Its
    `final` evaluation is taken where it was the same measurement, else the trial is evaluated anew.
    """
    runs = siblings.with_trial(plan.trial_id)
    if not runs or checkpoints.newest(store.files, plan.trial_id) is not None:
        return None
    for run in runs:
        try:
            taken = _taken(plan, rule, final, run, store)
        except (*UNREADABLE, checkpoints.CheckpointError):
            continue
        if taken is not None:
            return taken
    return None


def _taken(plan: Plan, rule: RungRule, final: Measurement | None, run: Sibling, store: Store) -> Taken | None:
    trial_id = plan.trial_id
    events, epochs, attacks = (run.rows(table, trial_id) for table in ("events", "epochs", "attacks"))
    ended = [json.loads(row["evidence"]) for row in events if row["kind"] == ENDED]
    if not _is_whole(plan, rule, epochs, attacks) or not ended or ended[-1]["checkpoint"] is None:
        return None
    last = max(row["epoch"] for row in epochs)
    for epoch in sorted({last, ended[-1]["checkpoint_epoch"]}):  # the last one last: with it, the others are there
        checkpoints.copy(run.store.files, store.files, trial_id, epoch)
    told = [*_training_told(trial_id, events), *_rungs_told(trial_id, epochs, attacks)]
    evaluated = _evaluation(plan, final, run, events, attacks, store) if final else Taken([])
    said = {"run": run.store.root, "epochs": last, "evaluations": list(evaluated.figures)}
    told += [*evaluated.told, ("events", f"{trial_id}.reused", [event(trial_id, REUSED, said)])]
    return Taken(told, evaluated.figures)


def _is_whole(plan: Plan, rule: RungRule, epochs: Sequence[Row], attacks: Sequence[Row]) -> bool:
    """Whether no epoch is missing, and the trial was measured at our rungs and in our way."""
    if not epochs:
        return False
    defense, training = plan.make_defense(), plan.make_training()
    ours = rungs(training.epochs, rule.grace_epochs, rule.reduction_factor, defense.ready_epoch)
    trained = sorted(row["epoch"] for row in epochs)
    wanted = [epoch for epoch in ours if epoch <= trained[-1]]
    there = {epoch: [row for row in attacks if row["evaluation"] == RUNG and row["epoch"] == epoch] for epoch in wanted}
    return (
        trained == list(range(1, trained[-1] + 1))
        and wanted[-1:] == trained[-1:]
        and sorted(row["epoch"] for row in epochs if is_rung(row)) == wanted
        and {row["epoch"] for row in attacks if row["evaluation"] == RUNG} == set(wanted)
        and all(is_same(rule.measurement, rows, plan) for rows in there.values())
    )


def is_same(what: Measurement, rows: Sequence[Row], plan: Plan) -> bool:
    """Whether rows of `attacks` say what this measurement would say: the same attacks, radii and number of examples.

    Which examples: all measurements of one kind take the first of a split, or those after the rungs'. An attack of a
    plugin is never the same: no id says what its source was.
    """
    threat = plan.threat
    levels = [threat["eps"] * part for part in AREA_FRACTIONS] if what.curve else [threat["eps"]]
    ours = stages(what.attacks, plan.make_defense().surface())
    if any(type(stage.attack).__module__.partition(".")[0] != "attacks" for stage in ours):
        return False
    ids = [stage.id for stage in ours]
    wanted = {(level, place, name) for level in levels for place, name in enumerate(ids)}
    return (
        {(row["eps"], row["position"], row["attack_id"]) for row in rows} == wanted
        and {row["n"] for row in rows} == {what.stop - what.start}
        and {row["norm"] for row in rows} == {threat["norm"]}
        and {row["split"] for row in rows} == {what.split}
    )


def _training_told(trial_id: str, events: Sequence[Row]) -> Told:
    """The events of training under the keys that they have there: the checkpoints tell some of them too."""
    told: Told = [
        ("events", key_of(trial_id, "training", start["at"]), [start, end])
        for start, end in _pairs(events, TRAINING_STARTED, TRAINING_ENDED)
    ]
    for row in events:
        if row["kind"] == DEGENERATE_AT_RUNG:
            told.append(("events", degenerate_key(trial_id, json.loads(row["evidence"])["epoch"]), [row]))
        elif row["kind"] == OUT_OF_MEMORY:
            told.append(("events", f"{trial_id}.parts.{json.loads(row['evidence'])['microbatches']}", [row]))
    return told


def _rungs_told(trial_id: str, epochs: Sequence[Row], attacks: Sequence[Row]) -> Told:
    told, before = Told(), 0
    for rung in sorted(row["epoch"] for row in epochs if is_rung(row)):
        measured = [row for row in attacks if row["evaluation"] == RUNG and row["epoch"] == rung]
        told.append(("attacks", rung_key(trial_id, rung), measured))
        rows = sorted((row for row in epochs if before < row["epoch"] <= rung), key=lambda row: row["epoch"])
        told.append(("epochs", rung_key(trial_id, rung), rows))
        before = rung
    return told


def _evaluation(
    plan: Plan, what: Measurement, run: Sibling, events: Sequence[Row], attacks: Sequence[Row], store: Store
) -> Taken:
    """The evaluation at the top with its examples, if it is the same measurement; nothing otherwise."""
    name = what.evaluation
    mine = [row for row in attacks if row["evaluation"] == name]
    others = {row["evaluation"] for row in attacks} - {name, RUNG}  # whose doubts cannot be told from these
    if others or not is_same(what, mine, plan):
        return Taken([])
    frame = readable(lambda: run.store.read_trial("examples", plan.trial_id))
    if frame is None or len(frame := frame[frame["evaluation"] == name]) != len(mine) * (what.stop - what.start):
        return Taken([])
    id = f"{plan.trial_id}.{name}"
    store.replace("examples", id, rows_of(frame))
    pairs = list(_pairs(events, EVALUATION_STARTED, EVALUATION_ENDED))
    doubts = [row for row in events if row["kind"].startswith(DOUBT)]
    told: Told = [("events", key_of(plan.trial_id, "evaluation", start["at"]), [start, end]) for start, end in pairs]
    told += [("events", f"{id}.doubts", doubts)] if doubts else []
    told.append(("attacks", id, mine))
    found = figures(store.to_table("attacks", mine).to_pandas(), frame, name, plan.threat["eps"])
    return Taken(told, {name: found})


def _pairs(events: Sequence[Row], start: str, end: str) -> Iterator[tuple[Row, Row]]:
    """What began and ended, one after the other."""
    rows = sorted((row for row in events if row["kind"] in (start, end)), key=lambda row: row["at"])
    for first, second in pairwise(rows):
        if (first["kind"], second["kind"]) == (start, end):
            yield first, second
