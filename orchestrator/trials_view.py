"""The row of a trial in `trials`, derived from what the other tables say of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.lifecycle import ENDED, EVALUATION_ENDED, TRAINING_ENDED, TRAINING_STARTED
from orchestrator.metrics import AREA_FRACTIONS
from orchestrator.protocols import SELECTING
from orchestrator.statistics import wilson_interval
from orchestrator.storage.schemas import PARAM

HEADLINES = SELECTING  # unless the spec's evaluations were changed: then `Protocols.headlines`
RUNG = "rung"
FIGURES = ("n", "clean_accuracy", "robust_accuracy", "robust_area", "robust_ci_low", "robust_ci_high")
DOUBT, SEVERE = "doubt:", "severe"
_COSTS = ("train_seconds", "gpu_seconds", "peak_memory_bytes")
_TOLD = ("parameters", "checkpoint_epoch", "checkpoint", "host", "device", *_COSTS)

Figures = dict[str, Any]
Row = Mapping[str, Any]


def trial_row(
    ask: Row,
    epochs: Sequence[Row],
    attacks: Sequence[Row],
    events: Sequence[Row],
    evaluated: Mapping[str, Figures],
    headlines: Sequence[str] = HEADLINES,
) -> dict[str, Any]:
    """The trial's row, from its row of `asks` and its own rows of the other tables.

    `evaluated` are the `figures` of each evaluation whose rows are all there, `headlines` the names of those that may
    stand in the row, the best first. `sweep`, `code_version` and `spec_hash`,
    which no table holds, are null. Raises ValueError for a trial whose end is not on record.
    """
    config = json.loads(ask["config_json"])
    ended = _ended(events, ask["trial_id"])
    evaluation = next((name for name in headlines if name in evaluated), None)
    at_checkpoint = [row for row in attacks if row["epoch"] == ended.get("checkpoint_epoch")]
    return {
        **_identity(ask, config, ended),
        "epochs": len({row["epoch"] for row in epochs} - {0}),  # 0: as it was, of a model that is not trained
        "evaluation": evaluation,
        **(evaluated[evaluation] if evaluation else dict.fromkeys(FIGURES)),
        "rung_robust_accuracy": _rung_accuracy(at_checkpoint, config["threat"]["eps"]),
        **_counts(attacks, events),
        **_course(events, ended),
        "train_seconds": ended.get("train_seconds", _sum(row["seconds"] for row in epochs)),
        "revision": len({row["evaluation"] for row in attacks} - {RUNG}),
    }


def row_from_tables(
    ask: Row,
    epochs: pd.DataFrame,
    attacks: pd.DataFrame,
    examples: pd.DataFrame,
    events: pd.DataFrame,
    headlines: Sequence[str] = HEADLINES,
) -> dict[str, Any]:
    """The same from frames of the tables; rows of other trials in them are left aside."""
    trial_id, eps = ask["trial_id"], json.loads(ask["config_json"])["threat"]["eps"]
    epochs, attacks, examples, events = (
        frame[frame["trial_id"] == trial_id] for frame in (epochs, attacks, examples, events)
    )
    recorded = set(attacks["evaluation"]) & set(examples["evaluation"])
    evaluated = {name: figures(attacks, examples, name, eps) for name in headlines if name in recorded}
    return trial_row(ask, rows_of(epochs), rows_of(attacks), rows_of(events), evaluated, headlines)


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


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as mappings."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _identity(ask: Mapping[str, Any], config: Mapping[str, Any], ended: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sweep": None, "cell": ask["cell"], "trial_id": ask["trial_id"], "config_id": config["config_id"],
        "seed": config["seed"], "stage": config["stage"], "status": ended["status"], "error": ended.get("error"),
        **{block: config[block]["name"] for block in ("defense", "network", "dataset")},
        "norm": config["threat"]["norm"], "eps": config["threat"]["eps"],
        **{PARAM + path: value for path, value in config["params"].items()},
        "params_json": json.dumps(config["params"], sort_keys=True),
    }  # fmt: skip


def _counts(attacks: Sequence[Row], events: Sequence[Row]) -> dict[str, Any]:
    doubts = [row for row in events if row["kind"].startswith(DOUBT)]
    return {
        "doubts": len(doubts),
        "severe_doubts": sum(row["severity"] == SEVERE for row in doubts),
        "eval_seconds": _sum(row["seconds"] for row in attacks),
    }


def _course(events: Sequence[Row], ended: Row) -> dict[str, Any]:
    """What the trial said of its own course, and the times of its life."""
    started = [row["at"] for row in events if row["kind"] == TRAINING_STARTED]
    over = [row["at"] for row in events if row["kind"] in (TRAINING_ENDED, EVALUATION_ENDED, ENDED)]
    return {
        **{name: ended.get(name) for name in _TOLD},
        "started_at": _time(min(started) if started else ended.get("started_at")),
        "finished_at": _time(max(over)),
        "code_version": None,
        "spec_hash": None,
    }


def _ended(events: Sequence[Row], trial_id: str) -> dict[str, Any]:
    """The evidence of the end of training; what a later end says (a failed evaluation) stands over the earlier."""
    ends = sorted((row for row in events if row["kind"] == ENDED), key=lambda row: row["at"])
    if not ends:
        raise ValueError(f"trial {trial_id}: its end is not on record")
    said: dict[str, Any] = {}
    for row in ends:
        said |= json.loads(row["evidence"])
    return said


def _sum(seconds: Iterable[float | None]) -> float:
    """Of what is known: a null, and the NaN that pandas makes of it, counts nothing."""
    return float(sum(value for value in seconds if value is not None and value == value))


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


def _rung_accuracy(attacks: Sequence[Row], eps: float) -> float | None:
    """What was left at a rung after its last attack at this eps."""
    rows = [row for row in attacks if row["evaluation"] == RUNG and abs(row["eps"] - eps) <= 1e-9 * eps]
    return float(max(rows, key=lambda row: row["position"])["robust_accuracy"]) if rows else None


def _time(value: Any) -> datetime | None:
    if value is None or value != value:
        return None
    moment = pd.Timestamp(value)
    return (moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")).to_pydatetime()
