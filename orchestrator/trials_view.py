"""The row of a trial in `trials`, derived from what the other tables say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.lifecycle import ENDED, EVALUATION_ENDED, TRAINING_ENDED, TRAINING_STARTED
from orchestrator.schemas import PARAM
from orchestrator.statistics import wilson_interval

HEADLINES = ("test", "final")  # evaluations whose figures may stand in a trial's row, the best first
RUNG = "rung"
AREA_FRACTIONS = (0.25, 0.5, 1.0)
FIGURES = ("n", "clean_accuracy", "robust_accuracy", "robust_area", "robust_ci_low", "robust_ci_high")
DOUBT, SEVERE = "doubt:", "severe"
_COSTS = ("train_seconds", "gpu_seconds", "peak_memory_bytes")
_TOLD = ("parameters", "checkpoint_epoch", "checkpoint", "host", "device", *_COSTS)

Figures = dict[str, Any]


def trial_row(
    ask: Mapping[str, Any], epochs: pd.DataFrame, attacks: pd.DataFrame, examples: pd.DataFrame, events: pd.DataFrame
) -> dict[str, Any]:
    """The trial's row, from its row of `asks` and its rows of the other tables (those of others are left aside).

    `sweep`, `code_version` and `spec_hash`, which no table holds, are null. Raises ValueError for a trial whose
    end is not on record.
    """
    trial_id, config = ask["trial_id"], json.loads(ask["config_json"])
    epochs, attacks, examples, events = (
        frame[frame["trial_id"] == trial_id] for frame in (epochs, attacks, examples, events)
    )
    ended = _ended(events, trial_id)
    eps, epoch = config["threat"]["eps"], ended.get("checkpoint_epoch")
    evaluation = headline(attacks, examples)
    return {
        **_identity(ask, config, ended),
        "epochs": int(epochs["epoch"].nunique()),
        "evaluation": evaluation,
        **figures(attacks, examples, evaluation, eps),
        "rung_robust_accuracy": _rung_accuracy(attacks[attacks["epoch"] == epoch], eps),
        **_counts(attacks, events),
        **_course(events, ended),
        "train_seconds": ended.get("train_seconds", float(epochs["seconds"].sum())),
        "revision": int(attacks.loc[attacks["evaluation"] != RUNG, "evaluation"].nunique()),
    }


def headline(attacks: pd.DataFrame, examples: pd.DataFrame) -> str | None:
    """The evaluation that a trial's figures come from: the best of those whose rows are all there."""
    recorded = set(attacks["evaluation"]) & set(examples["evaluation"])
    return next((name for name in HEADLINES if name in recorded), None)


def figures(attacks: pd.DataFrame, examples: pd.DataFrame, evaluation: str | None, eps: float) -> Figures:
    """The figures of one evaluation of one trial at the threat's eps; all null where there is none.

    Robust accuracy is the worst case per example over the attacks; for a stochastic model it is the expected
    accuracy after the whole cascade, and its clean accuracy, of which `examples` has no grain, is that of `attacks`.
    """
    attacks, examples = attacks[attacks["evaluation"] == evaluation], examples[examples["evaluation"] == evaluation]
    here = _at(examples, eps)
    if here.empty:
        return dict.fromkeys(FIGURES)
    n, robust = int(here["example_id"].nunique()), _robust_accuracy(here, _at(attacks, eps))
    levels = [(_at(examples, eps * part), _at(attacks, eps * part)) for part in AREA_FRACTIONS]
    has_area = all(len(rows) and len(stages) for rows, stages in levels)
    low, high = wilson_interval(robust * n, n)
    return {
        "n": n,
        "clean_accuracy": _clean_accuracy(here, _at(attacks, eps)),
        "robust_accuracy": robust,
        "robust_area": float(np.mean([_robust_accuracy(*level) for level in levels])) if has_area else None,
        "robust_ci_low": low,
        "robust_ci_high": high,
    }


def _identity(ask: Mapping[str, Any], config: Mapping[str, Any], ended: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sweep": None, "cell": ask["cell"], "trial_id": ask["trial_id"], "config_id": config["config_id"],
        "seed": config["seed"], "stage": config["stage"], "status": ended["status"], "error": ended.get("error"),
        **{block: config[block]["name"] for block in ("defense", "network", "dataset")},
        "norm": config["threat"]["norm"], "eps": config["threat"]["eps"],
        **{PARAM + path: value for path, value in config["params"].items()},
        "params_json": json.dumps(config["params"], sort_keys=True),
    }  # fmt: skip


def _counts(attacks: pd.DataFrame, events: pd.DataFrame) -> dict[str, Any]:
    doubts = events[events["kind"].str.startswith(DOUBT)]
    return {
        "doubts": len(doubts),
        "severe_doubts": int((doubts["severity"] == SEVERE).sum()),
        "eval_seconds": float(attacks["seconds"].sum()),
    }


def _course(events: pd.DataFrame, ended: Mapping[str, Any]) -> dict[str, Any]:
    """What the trial said of its own course, and the times of its life."""
    started = events.loc[events["kind"] == TRAINING_STARTED, "at"]
    over = events.loc[events["kind"].isin([TRAINING_ENDED, EVALUATION_ENDED, ENDED]), "at"]
    return {
        **{name: ended.get(name) for name in _TOLD},
        "started_at": _time(started.min() if len(started) else ended.get("started_at")),
        "finished_at": _time(over.max()),
        "code_version": None,
        "spec_hash": None,
    }


def _ended(events: pd.DataFrame, trial_id: str) -> dict[str, Any]:
    """The evidence of the end of training; what a later end says (a failed evaluation) stands over the earlier."""
    ends = events[events["kind"] == ENDED].sort_values("at", kind="stable")
    if ends.empty:
        raise ValueError(f"trial {trial_id}: its end is not on record")
    said: dict[str, Any] = {}
    for evidence in ends["evidence"]:
        said |= json.loads(evidence)
    return said


def _at(rows: pd.DataFrame, eps: float) -> pd.DataFrame:
    return rows[np.isclose(rows["eps"].astype(float), eps, rtol=1e-9, atol=0)]


def _robust_accuracy(examples: pd.DataFrame, attacks: pd.DataFrame) -> float:
    """From the rows at one eps."""
    if not examples["robust_probability"].notna().any():
        return float(examples.groupby("example_id")["robust"].all().mean())
    last = attacks.sort_values("position")["attack_id"].iloc[-1]
    reached = examples[examples["attack_id"] == last].drop_duplicates("example_id", keep="last")
    return float(reached["robust_probability"].mean())


def _clean_accuracy(examples: pd.DataFrame, attacks: pd.DataFrame) -> float:
    if examples["robust_probability"].notna().any():
        return float(attacks["clean_accuracy"].iloc[-1])
    first = examples.drop_duplicates("example_id")
    return float((first["clean_prediction"] == first["label"]).mean())


def _rung_accuracy(attacks: pd.DataFrame, eps: float) -> float | None:
    """What was left at a rung after its last attack at this eps."""
    rows = _at(attacks[attacks["evaluation"] == RUNG], eps).sort_values("position")
    return float(rows["robust_accuracy"].iloc[-1]) if len(rows) else None


def _time(value: Any) -> datetime | None:
    if value is None or value != value:
        return None
    moment = pd.Timestamp(value)
    return (moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")).to_pydatetime()
