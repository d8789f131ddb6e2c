"""A run on disk, read: pandas frames, the leaderboard, the Pareto front, the trained models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.errors import UserError
from orchestrator.goals import Goals
from orchestrator.leaderboard import leaderboard, pareto
from orchestrator.lifecycle import DEGENERATE_AT_RUNG, ENDED
from orchestrator.rundir import text_of
from orchestrator.storage.store import Store
from orchestrator.trials_view import figures
from orchestrator.wording import shown
from orchestrator.yaml_source import Source

if TYPE_CHECKING:
    from torch import nn

SPEC = "spec.yaml"
DEFAULT_OBJECTIVES = {"robust_area": "max", "clean_accuracy": "max"}
DEGENERATE = "doubt:degenerate"
STATES = ("running", "evaluating", "completed", "pruned", "failed")
STAGES = ("search", "finalist")


def load(path: str | Path) -> Run:
    """The run in `path`, a directory or URI <store>/<sweep name>. Raises UserError where there is none."""
    store = Store.at(path)
    if store.files.exists(SPEC):
        return Run(store)
    raise UserError(f"{path}: no run here ({SPEC} is missing){_runs_near(store)}")


def _runs_near(store: Store) -> str:
    if not store.files.is_local:
        return ""
    root = Path(store.root)
    near = sorted(spec.parent for spec in (*root.glob(f"*/{SPEC}"), *root.parent.glob(f"*/{SPEC}")))
    return f"; there is one in {', '.join(map(str, near[:5]))}" if near else ""


@dataclass(frozen=True)
class Run:
    """One sweep in its store, finished or not; every call reads what is there now."""

    store: Store

    @property
    def root(self) -> str:
        """The run directory: an absolute path, or a URI."""
        return self.store.root

    def asks(self) -> pd.DataFrame:
        return self.store.read("asks")

    def trials(self) -> pd.DataFrame:
        return self.store.read("trials")

    def epochs(self) -> pd.DataFrame:
        return self.store.read("epochs")

    def attacks(self) -> pd.DataFrame:
        return self.store.read("attacks")

    def examples(self) -> pd.DataFrame:
        return self.store.read("examples")

    def events(self) -> pd.DataFrame:
        return self.store.read("events")

    def leaderboard(self) -> pd.DataFrame:
        """One row per configuration, best first: `orchestrator.leaderboard` says how they are ranked."""
        trials = self.trials()
        return leaderboard(self._on_validation(trials), self._degenerate(trials), self.goals())

    def pareto(self) -> pd.DataFrame:
        """The configurations of the leaderboard that no other beats in every objective, on validation data."""
        return pareto(self.leaderboard(), self.goals())

    def status(self) -> pd.DataFrame:
        """How many trials there are: a row per stage, a column per state."""
        asks = self.store.read("asks", ["trial_id", "config_json"])
        done = self.store.read("trials", ["trial_id", "status"]).set_index("trial_id")["status"].to_dict()
        events = self.store.read("events", ["trial_id", "kind"])
        trained = set(events.loc[events["kind"] == ENDED, "trial_id"])
        states = [done.get(trial, "evaluating" if trial in trained else "running") for trial in asks["trial_id"]]
        stages = [json.loads(text)["stage"] for text in asks["config_json"]]
        counts = pd.crosstab(pd.Index(stages, name="stage"), pd.Index(states, name="state"))
        return counts.reindex(index=STAGES, columns=STATES, fill_value=0).rename_axis(index=None, columns=None)

    def _degenerate(self, trials: pd.DataFrame) -> set[str]:
        """The trials whose model was found degenerate when evaluated, or at the rung at which they were stopped."""
        events = self.store.read("events", ["trial_id", "kind", "evidence"])
        found = set(events.loc[events["kind"] == DEGENERATE, "trial_id"])
        rungs = events[events["kind"] == DEGENERATE_AT_RUNG]
        at_rung = {(row.trial_id, json.loads(str(row.evidence))["epoch"]) for row in rungs.itertuples()}
        kept = zip(trials["trial_id"], trials["checkpoint_epoch"], strict=True)
        return found | {trial for trial, epoch in kept if (trial, epoch) in at_rung}

    def goals(self) -> Goals:
        """The objectives and constraints of the stored spec."""
        search = self.spec().get("search") or {}
        return Goals(search.get("objectives") or DEFAULT_OBJECTIVES, search.get("constraints") or {})

    def spec(self) -> dict[str, Any]:
        """The stored spec, as plain YAML."""
        where = f"{self.root}/{SPEC}"
        found = Source(f"{text_of(self.store.files, SPEC)}\n", name=where).tree
        if not isinstance(found, dict):
            raise UserError(f"{where}: is not the spec of a sweep, got {shown(found)}")
        return found

    def model(self, trial_id: str) -> nn.Module:
        """The trained model of a trial, ready to call: images in [0, 1] -> logits; `.surface` says how to attack it.

        Raises UserError for a trial that is unknown or left no checkpoint.
        """
        from defenses.inputs.front import known
        from orchestrator.plan import Plan
        from orchestrator.storage import checkpoints

        row = self._row(trial_id)
        state, _ = checkpoints.load(self.store.files, row["checkpoint"])
        defense = Plan(**row["config"]).make_defense()
        model: nn.Module = defense.deployed(state)
        surface: Any = known(defense.surface(), model)
        model.surface = surface
        return model

    def _row(self, trial_id: str) -> dict[str, Any]:
        """Where a trial's checkpoint is, and its configuration."""
        trials = self.store.read("trials", ["trial_id", "checkpoint"]).dropna()
        if trial_id not in set(trials["trial_id"]):
            known = ", ".join(trials["trial_id"].head(5)) or "none"
            raise UserError(f"{self.root}: no model of trial {trial_id!r}; trials with a model: {known}")
        ask = self.store.read_trial("asks", trial_id)
        checkpoint = trials.set_index("trial_id").loc[trial_id, "checkpoint"]
        return {"checkpoint": checkpoint, "config": json.loads(ask["config_json"].iloc[0])}

    def _on_validation(self, trials: pd.DataFrame) -> pd.DataFrame:
        """The rows, those of search trials with their validation figures, though someone tested such a trial too."""
        trials = trials.copy()
        for place in trials.index[(trials["stage"] == "search") & (trials["evaluation"] == "test")]:
            trial_id, eps = str(trials.loc[place, "trial_id"]), float(trials["eps"][place])
            attacks, examples = (self.store.read_trial(table, trial_id) for table in ("attacks", "examples"))
            evaluation = "final" if "final" in set(attacks["evaluation"]) else None
            found = {"evaluation": evaluation, **figures(attacks, examples, evaluation, eps)}
            for name, value in found.items():
                trials.loc[place, name] = value
        return trials
