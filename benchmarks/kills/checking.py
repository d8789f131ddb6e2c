"""What a finished row of `trials` must say, worked out once more from the rows of the other tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kills.tables import KEYS, Tables, plain, rows_of, twice

STATUSES = {"completed", "pruned", "failed"}
HEADLINE = {"search": "final", "finalist": "test"}
FIGURES = ("n", "clean_accuracy", "robust_accuracy", "robust_area", "robust_ci_low", "robust_ci_high")
Z = 1.959963984540054  # the 97.5th percentile of the normal distribution


def wrong_with_trial(row: Mapping[str, Any], tables: Tables, root: Path | None = None) -> list[str]:
    """In what a row of `trials` differs from the rows it sums up; `root` to look for its checkpoint too."""
    trial = row["trial_id"]
    epochs, attacks, examples = (_of(tables[name], trial) for name in ("epochs", "attacks", "examples"))
    found = dict[str, tuple[object, object]]()  # what: (seen, expected)
    if row["status"] not in STATUSES:
        found["status"] = (row["status"], "one of " + ", ".join(sorted(STATUSES)))
    found["epochs"] = (row["epochs"], int(epochs["epoch"].nunique()))
    found["the epochs on record"] = (sorted(epochs["epoch"]), list(range(1, len(epochs) + 1)))
    headline = HEADLINE[row["stage"]] if row["status"] == "completed" else None
    found["evaluation"] = (plain(row["evaluation"]), headline)
    expected = _figures(examples[examples["evaluation"] == headline], row["eps"])
    found |= {name: (plain(row[name]), expected[name]) for name in FIGURES}
    found["rung_robust_accuracy"] = (plain(row["rung_robust_accuracy"]), _rung(attacks, row))
    found["revision"] = (row["revision"], attacks.loc[attacks["evaluation"] != "rung", "evaluation"].nunique())
    found["eval_seconds"] = (row["eval_seconds"], float(attacks["seconds"].sum()))
    found |= _settings(row, _of(tables["asks"], trial))
    if root is not None and row["status"] == "completed":
        path = root / "checkpoints" / str(row["checkpoint"])
        found["checkpoint"] = ("there" if path.is_file() else f"no {path}", "there")
    wrong = [
        f"trials {trial}: {what}: {seen!r}, its rows say {due!r}"
        for what, (seen, due) in found.items()
        if not _same(seen, due)
    ]
    return wrong + _wrong_with_attacks(trial, attacks, examples) + _wrong_with_rungs(trial, epochs, attacks, row["eps"])


def wrong_with_store(root: Path, tables: Tables, trials: int, finalists: int) -> list[str]:
    """All that a finished store must be: every trial asked for is there once, and equals its rows."""
    wrong = [text for name in KEYS for text in twice(name, tables[name])]
    rows, asked = rows_of(tables["trials"]), set(tables["asks"]["trial_id"])
    wrong += [f"trials: {trial} was asked for and has no row" for trial in sorted(asked - set(rows))]
    for name in ("trials", "epochs", "attacks", "examples"):
        strangers = sorted(set(tables[name]["trial_id"]) - asked)
        wrong += [f"{name}: {trial} was never asked for" for trial in strangers]
    stages = tables["trials"]["stage"].value_counts()
    for stage, count in (("search", trials), ("finalist", finalists)):
        if stages.get(stage, 0) != count:
            wrong.append(f"trials: {stages.get(stage, 0)} of stage {stage}, not {count}")
    for row in rows.values():
        if row["status"] == "failed":
            wrong.append(f"trials {row['trial_id']}: failed: {row['error']}")
        wrong += wrong_with_trial(row, tables, root)
    return wrong


def wilson(share: float, n: int) -> tuple[float, float]:
    """The roots p of (share - p)^2 = z^2 p (1 - p) / n, which is what the interval is."""
    a, b, c = 1 + Z * Z / n, -(2 * share + Z * Z / n), share * share
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _of(table: pd.DataFrame, trial: str) -> pd.DataFrame:
    return table[table["trial_id"] == trial]


def _figures(examples: pd.DataFrame, eps: float) -> dict[str, Any]:
    """By example: robust at an eps is what no attack there, and none at a smaller eps, has fooled."""
    if examples.empty:
        return dict.fromkeys(FIGURES)
    levels = {}
    for level in (eps / 4, eps / 2, eps):
        here = examples[(examples["eps"] - level).abs() < 1e-9]
        levels[level] = here.groupby("example_id")["robust"].all()
    at_eps = examples[(examples["eps"] - eps).abs() < 1e-9].drop_duplicates("example_id")
    n, robust = len(at_eps), float(levels[eps].mean())
    low, high = wilson(robust, n)
    return {
        "n": n,
        "clean_accuracy": float((at_eps["clean_prediction"] == at_eps["label"]).mean()),
        "robust_accuracy": robust,
        "robust_area": sum(float(found.mean()) for found in levels.values()) / 3,
        "robust_ci_low": low,
        "robust_ci_high": high,
    }


def _rung(attacks: pd.DataFrame, row: Mapping[str, Any]) -> float | None:
    here = attacks[(attacks["evaluation"] == "rung") & (attacks["epoch"] == row["checkpoint_epoch"])]
    here = here[(here["eps"] - row["eps"]).abs() < 1e-9].sort_values("position")
    return float(here["robust_accuracy"].iloc[-1]) if len(here) else None


def _settings(row: Mapping[str, Any], asks: pd.DataFrame) -> dict[str, tuple[object, object]]:
    """The row's settings against what was asked for."""
    if len(asks) != 1:
        return {"rows of asks": (len(asks), 1)}
    config, params = json.loads(asks["config_json"].iloc[0]), json.loads(row["params_json"])
    columns = {
        name.removeprefix("param."): plain(value)
        for name, value in row.items()
        if name.startswith("param.") and plain(value) is not None
    }
    return {
        "params_json": (params, config["params"]),
        "param.* columns": (columns, params),
        "seed": (row["seed"], config["seed"]),
        "stage": (row["stage"], config["stage"]),
        "config_id": (row["config_id"], config["config_id"]),
        "cell": (row["cell"], asks["cell"].iloc[0]),
    }


def _wrong_with_attacks(trial: str, attacks: pd.DataFrame, examples: pd.DataFrame) -> list[str]:
    """Each evaluation: positions in order, robust accuracy by the counts, intervals, and the rows of `examples`."""
    wrong = []
    for where, cascade in attacks.groupby(["evaluation", "epoch", "eps"]):
        what = f"attacks {trial} {where}"
        ordered = cascade.sort_values("position")
        if list(ordered["position"]) != list(range(len(ordered))):
            wrong.append(f"{what}: positions {list(ordered['position'])}")
        for row in ordered.to_dict("records"):
            n, left = row["n"], row["n_attacked"] - row["n_fooled"]
            low, high = wilson(left / n, n)
            seen = (row["robust_accuracy"], row["ci_low"], row["ci_high"])
            if not all(map(_same, seen, (left / n, low, high))):
                wrong.append(f"{what}: {row['attack']}: {seen}, its counts say {(left / n, low, high)}")
            if where[0] != "rung":
                wrong += _wrong_with_examples(what, row, examples)
        if (ordered["n_attacked"].iloc[1:].to_numpy() != (ordered["n_attacked"] - ordered["n_fooled"])[:-1]).any():
            wrong.append(f"{what}: attacked {list(ordered['n_attacked'])}, fooled {list(ordered['n_fooled'])}")
    return wrong


def _wrong_with_examples(what: str, row: Mapping[str, Any], examples: pd.DataFrame) -> list[str]:
    columns = ["evaluation", "epoch", "eps", "attack_id"]
    here = examples[(examples[columns] == [row[name] for name in columns]).all(axis=1)]
    if here["example_id"].nunique() == row["n"] == len(here):
        return []
    return [f"{what}: {row['attack']}: {len(here)} rows of examples, n is {row['n']}"]


def _wrong_with_rungs(trial: str, epochs: pd.DataFrame, attacks: pd.DataFrame, eps: float) -> list[str]:
    """The rung figures in `epochs` are those of `attacks`."""
    rungs = attacks[(attacks["evaluation"] == "rung") & ((attacks["eps"] - eps).abs() < 1e-9)]
    last = rungs.sort_values("position").groupby("epoch").last()
    seen = {
        int(row["epoch"]): row["robust_accuracy"]
        for row in epochs.to_dict("records")
        if plain(row["robust_accuracy"]) is not None
    }
    due = {int(epoch): value for epoch, value in last["robust_accuracy"].items()}
    return [] if seen == due else [f"epochs {trial}: rung figures {seen}, attacks say {due}"]


def _same(seen: Any, due: Any) -> bool:
    """Equal; numbers to the last few bits, since there are several ways to add."""
    if isinstance(seen, float) and isinstance(due, float):
        return math.isclose(seen, due, rel_tol=1e-9, abs_tol=1e-12)
    return bool(seen == due)
