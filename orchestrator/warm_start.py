"""What a new search may learn from other runs (`search.warm_start`): read once, recorded, read back from there."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.cascade import stages
from orchestrator.cells import Cell
from orchestrator.errors import UserError
from orchestrator.fitting import NoFit, params_of
from orchestrator.goals import Goals
from orchestrator.lasting import lasting_base
from orchestrator.lifecycle import WARM_START, WARM_TRIAL, event
from orchestrator.outcomes import facts, mean_figures, measured, outcome_of
from orchestrator.protocols import Protocols
from orchestrator.records import Record, read_records
from orchestrator.search import Outcome, Past
from orchestrator.spec import Spec
from orchestrator.storage.files import Files, open_files
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.patience import Patient
from orchestrator.storage.store import Store
from orchestrator.storage.store_place import is_uri
from orchestrator.told import Row
from orchestrator.trials_view import RUNG, rows_of

SPEC = "spec.yaml"
WHERE = "search.warm_start"
RECORD = "warm_start"  # the one record that holds it all: it is there whole, or not yet


@dataclass
class WarmStart:
    """What each cell's search begins with, in order, and a sentence on what was taken and left of each run."""

    past: dict[str, list[Past]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def warm_start(spec: Spec, store: Store, ledger: Ledger) -> WarmStart:
    """What is on record of it; before the first time, the runs that the spec names are read and it is recorded.

    Raises UserError for a run that is not there or cannot be read.
    """
    if not spec.search.warm_start:
        return WarmStart()
    if not ledger.has("events", RECORD):
        ledger.append("events", RECORD, _rows(spec, store.root))
        ledger.flush("events")
    recorded = store.record("events", RECORD)
    assert recorded is not None
    found = WarmStart({cell.name: [] for cell in spec.cells()})
    for row in recorded.to_pylist():
        said = json.loads(row["evidence"])
        if row["kind"] == WARM_START:
            found.remarks.append(_remark(said))
        else:
            rungs = {int(epoch): value for epoch, value in (said["rungs"] or {}).items()}
            values = None if said["values"] is None else tuple(said["values"])
            outcome = Outcome(said["status"], values, rungs, said["constraints"])
            found.past[said["cell"]].append(Past(said["params"], outcome))
    return found


def refuse_missing_runs(spec: Spec, files: Files) -> None:
    """Raises UserError where a sweep that is new in its run directory names a run that is not there."""
    if not files.exists(SPEC):
        for place in spec.search.warm_start:
            _opened(place, files.root)


def _opened(place: str, own: str) -> Store:
    found = place if is_uri(place) else str((lasting_base() / Path(place).expanduser()).absolute())
    if found.rstrip("/") == own:
        raise UserError(f"{WHERE}: {place}: is the run directory of this sweep itself; name other runs")
    files = open_files(found)
    if not files.exists(SPEC):
        raise UserError(f"{WHERE}: {place}: no run here; must be <store>/<sweep name> of another, looked in {found}")
    return Store(Patient(files))


def _remark(said: Mapping[str, Any]) -> str:
    left = "; ".join(f"{count} left out: {reason}" for reason, count in said["skipped"].items())
    return f"the search in {said['cell']} begins with {said['taken']} trials of {said['run']}" + (
        f" ({left})" * bool(left)
    )


def _rows(spec: Spec, root: str) -> list[Row]:
    """The rows of `events`: the trials, numbered from behind below 0, and a summary for each run and cell."""
    goals = Goals(spec.search.objectives, spec.search.constraints)
    runs = [_Source.at(place, root) for place in dict.fromkeys(spec.search.warm_start)]
    rows: list[Row] = []
    for cell in spec.cells():
        taken: list[dict[str, Any]] = []
        for run in runs:
            skipped, before = Counter[str](), len(taken)
            for trials in run.configurations:
                try:
                    params, outcome = run.taken(trials, cell, spec, goals)
                except NoFit as reason:
                    skipped[str(reason)] += 1
                    continue
                first = trials[0].plan
                taken.append({"run": run.root, "trial_id": first.trial_id, "params": params, **asdict(outcome)})
            said = {"cell": cell.name, "run": run.root, "taken": len(taken) - before, "skipped": dict(skipped)}
            rows.append(event("", WARM_START, said) | {"trial_id": None})
        for place, each in enumerate(taken):
            said = {"cell": cell.name, "number": place - len(taken), **each}
            rows.append(event("", WARM_TRIAL, said) | {"trial_id": None})
    return rows


@dataclass(frozen=True)
class _Source:
    """A run to learn from: the trials of each configuration, and the attacks of each trial's evaluations, by id."""

    root: str
    configurations: list[list[Record]]
    attacks: dict[tuple[str, str], list[str]]
    protocols: Protocols

    @classmethod
    def at(cls, place: str, own: str) -> _Source:
        store = _opened(place, own)
        try:
            records, _ = read_records(store)
            protocols = Protocols.of(store.files)
            rows = rows_of(store.read("attacks", ["trial_id", "evaluation", "epoch", "position", "attack_id"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{WHERE}: {place}: is a run of another version of robustsweep: {error}") from error
        groups: dict[str, list[Record]] = {}
        for record in records.values():
            if record.plan.stage == "search":
                groups.setdefault(record.plan.config_id, []).append(record)
        for trials in groups.values():
            trials.sort(key=lambda record: record.plan.seed)
        return cls(store.root, list(groups.values()), _attacks_of(rows), protocols)

    def taken(self, trials: Sequence[Record], cell: Cell, spec: Spec, goals: Goals) -> tuple[dict[str, Any], Outcome]:
        """The coordinates of a configuration in the space of a cell, and how it ended. Raises NoFit."""
        plan = trials[0].plan
        if plan.dataset["name"] != cell.dataset.name:
            raise NoFit(f"its dataset is {plan.dataset['name']}")
        threat = plan.threat
        if threat["norm"] != cell.threat.norm or not math.isclose(threat["eps"], cell.threat.eps, rel_tol=1e-9):
            raise NoFit(f"its threat is {threat['norm']} eps {threat['eps']:.4g}")
        outcome = self._outcome(trials, spec, goals)
        blocks = {"network": plan.network, "defense": plan.defense, "training": plan.training}
        holes = cell.space.holes()
        params = params_of(cell.space, blocks, plan.params)
        return {path: holes[path].internal(value) for path, value in params.items()}, outcome

    def _outcome(self, trials: Sequence[Record], spec: Spec, goals: Goals) -> Outcome:
        headline = self.protocols.headline
        ready = measured(trials, headline)
        wanted = {*goals.objectives, *goals.constraints}
        if ready and wanted - set(mean_figures(ready, headline)):
            raise NoFit("an objective or a constraint is not on record")
        outcome = outcome_of(trials, goals, headline, spec.search.risk)
        if outcome is None or outcome.status == "failed":
            raise NoFit("it is not finished" if outcome is None else "it failed")
        name = "final" if outcome.status == "completed" else RUNG
        recorded = self.protocols.name(name)
        try:
            surface = trials[0].plan.make_defense().surface()
        except UserError as error:
            raise NoFit("its defense is not known here") from error
        ours = [stage.id for stage in stages(spec.evaluation.block(name).attacks, surface)]
        if any(self.attacks.get((record.plan.trial_id, recorded)) != ours for record in (ready or trials)):
            raise NoFit(f"its {name} evaluation attacked otherwise")
        first = trials[0]
        if outcome.status == "pruned" and not all(
            goals.are_known(facts(first) | rung) for rung in first.rungs.values()
        ):
            raise NoFit("an objective or a constraint is not on record")
        return outcome


def _attacks_of(rows: Sequence[Row]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        found.setdefault((row["trial_id"], row["evaluation"]), {})[row["position"]] = row["attack_id"]
    return {place: [stages[position] for position in sorted(stages)] for place, stages in found.items()}
