"""Which configuration is robust: one row per configuration, figures of the test and of the validation split apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from orchestrator.beside import figures_beside, names_of
from orchestrator.fronts import Floats, non_dominated_rank
from orchestrator.goals import Goals
from orchestrator.statistics import wilson_interval
from orchestrator.storage.schemas import PARAM

PROBLEM = ["dataset", "norm", "eps"]  # only within one of these do figures compare
CONFIGURATION = [*PROBLEM, "cell", "config_id"]
FIGURES = ("robust_accuracy", "robust_area", "clean_accuracy")
_STATUS = ("failed", "pruned", "completed")  # a configuration has the best of its trials'
_COLUMNS = [
    "rank", "front", "cell", "config_id", "trial_id", "defense", "network", *PROBLEM,
    "stage", "status", "feasible", "degenerate", "seeds",
    "test_robust_accuracy", "test_ci_low", "test_ci_high", "test_robust_min", "test_robust_max", "test_robust_area",
    "test_clean_accuracy", "test_n",
    "final_robust_accuracy", "final_ci_low", "final_ci_high", "final_robust_area", "final_clean_accuracy", "final_n",
    "final_seeds", "final_robust_spread", "final_clean_spread",
    "rung_robust_accuracy", "doubts", "severe_doubts", "failed",
]  # fmt: skip


def leaderboard(
    trials: pd.DataFrame, degenerate: set[str], goals: Goals, attacks: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per configuration, best first, from rows of `trials`; `degenerate` are ids of trials.

    `test_*` are of the finalists: means over the seeds, the extremes over them, and the Wilson interval of the mean
    over the images of one seed (all seeds see the same images). `final_*` are of the search, on validation data: means
    over its seeds, with their standard deviation (`*_spread`, null for one seed); `rung_*` is of its first seed. First
    come configurations with test figures, then those with final ones, then those that were pruned; within each those
    that hold the constraints, by the first objective, or by non-dominated front and within it by the first objective.
    Failed and degenerate ones are last and have no `rank`. Ranks count anew for each dataset and threat.

    Of `attacks`, the table's rows, come columns for evaluations beside `final` and `test`, such as
    `paper_robust_accuracy`: nothing is ranked by them.
    """
    trials = trials.assign(dataset=_data_of(trials))
    board = _configurations(trials, degenerate)
    more: list[str] = []
    if attacks is not None and len(attacks):
        beside = figures_beside(attacks, trials, CONFIGURATION)
        board, more = board.join(beside, on=CONFIGURATION), list(beside.columns)
    is_tested, is_validated = board["test_robust_accuracy"].notna(), board["final_robust_accuracy"].notna()
    board["tier"] = np.select([is_tested, is_validated], [0, 1], 2)
    board["loses"] = board["degenerate"] | (board["status"] == "failed")
    board["feasible"] = [_is_feasible(row, goals) for _, row in board.iterrows()]
    board = _ranked(board, goals)
    params = [name for name in _params(board) if board[name].astype(object).nunique(dropna=False) > 1]
    return board[[*_COLUMNS, *more, *params, "parameters", "train_seconds"]]


def names_beside(board: pd.DataFrame) -> list[str]:
    """What the evaluations beside `final` and `test` are called that a leaderboard has columns for."""
    return names_of(board.columns, _COLUMNS)


def pareto(board: pd.DataFrame, goals: Goals) -> pd.DataFrame:
    """The rows of a leaderboard that none dominates on validation data (`final_*`), on which all compare.

    Only configurations that may win; ordered by the first objective, within each dataset and threat.
    """
    able = board[board["feasible"] & board["rank"].notna() & board["final_robust_accuracy"].notna()]
    fronts = []
    for _, rows in able.groupby(PROBLEM, sort=False, dropna=False):
        values = _gains(rows, goals, "final")
        best = np.flatnonzero(non_dominated_rank(values) == 0)
        fronts.append(rows.iloc[best[np.argsort(-values[best, 0], kind="stable")]])
    return pd.concat(fronts, ignore_index=True) if fronts else able.reset_index(drop=True)


def _configurations(trials: pd.DataFrame, degenerate: set[str]) -> pd.DataFrame:
    """One row per configuration: its search trial, with the figures of all its trials beside."""
    trials = trials.assign(
        is_search=trials["stage"] == "search",
        status_place=trials["status"].map(_STATUS.index).astype(int),
        has_failed=trials["status"] == "failed",
        is_degenerate=trials["trial_id"].isin(degenerate),
    ).sort_values(["is_search", "seed"], ascending=[False, True], kind="stable")
    groups = trials.groupby(CONFIGURATION, sort=False, dropna=False)
    told = groups.agg(
        status_place=("status_place", "max"), failed=("has_failed", "sum"), degenerate=("is_degenerate", "any"),
        doubts=("doubts", "sum"), severe_doubts=("severe_doubts", "sum"),
    )  # fmt: skip
    told["status"] = [_STATUS[place] for place in told.pop("status_place")]
    keep = ["trial_id", "defense", "network", "rung_robust_accuracy", "parameters", "train_seconds"]
    keep += _params(trials)
    first = trials.drop_duplicates(CONFIGURATION).set_index(CONFIGURATION)[keep]
    tested = trials[(trials["evaluation"] == "test") & ~trials["is_search"]]
    validated = trials[(trials["evaluation"] == "final") & trials["is_search"]]
    spreads = validated.groupby(CONFIGURATION, sort=False, dropna=False).agg(
        final_robust_spread=("robust_accuracy", "std"), final_clean_spread=("clean_accuracy", "std")
    )
    seconds = validated.groupby(CONFIGURATION, sort=False, dropna=False)["train_seconds"].mean()
    first["train_seconds"] = seconds.combine_first(first["train_seconds"])
    board = first.join(told).join(_pooled(tested, "test")).join(_pooled(validated, "final")).join(spreads)
    for name in ("seeds", "final_seeds"):
        board[name] = board[name].fillna(0).astype(int)
    board["stage"] = np.where(board["seeds"] > 0, "finalist", "search")
    return board.reset_index()


def _data_of(trials: pd.DataFrame) -> pd.Series[str]:
    """The dataset's name, or where a matrix has several, its entry in the cell: two may have the same name."""
    entry = trials["cell"].str.extract(r"(?:^|,)dataset=([^,]*)", expand=False)
    return entry.fillna(trials["dataset"])


def _params(frame: pd.DataFrame) -> list[str]:
    return [name for name in map(str, frame.columns) if name.startswith(PARAM)]


def _pooled(trials: pd.DataFrame, split: str) -> pd.DataFrame:
    """Figures over the trials of each configuration: means, extremes, and the interval of the mean.

    The seeds of a finalist are attacked on the same images, so `n` is that of one seed: more seeds make the mean
    steadier, not the sample of images larger.
    """
    groups = trials.groupby(CONFIGURATION, sort=False, dropna=False)
    found = groups.agg(
        **{f"{split}_{name}": (name, "mean") for name in FIGURES},
        **{f"{split}_robust_min": ("robust_accuracy", "min"), f"{split}_robust_max": ("robust_accuracy", "max")},
        **{f"{split}_n": ("n", "min")},
        **{"seeds" if split == "test" else f"{split}_seeds": ("seed", "nunique")},
    )
    pairs = zip(found[f"{split}_robust_accuracy"], found[f"{split}_n"], strict=True)
    intervals = [wilson_interval(float(mean) * int(n), int(n)) for mean, n in pairs]
    found[[f"{split}_ci_low", f"{split}_ci_high"]] = np.array(intervals).reshape(-1, 2)
    return found


def _ranked(board: pd.DataFrame, goals: Goals) -> pd.DataFrame:
    """The rows in their order, with `rank` and `front`."""
    parts = []
    for _, problem in board.groupby(PROBLEM, sort=False, dropna=False):
        ordered = []
        for _, rows in problem.groupby(["loses", "tier", ~problem["feasible"]], sort=True):
            values = _gains(rows, goals, ("test", "final", "rung")[rows["tier"].iloc[0]])
            front = non_dominated_rank(values)
            ordered.append(rows.assign(front=front).iloc[np.lexsort((-values[:, 0], front))])
        placed = pd.concat(ordered)
        places = pd.Series(range(1, len(placed) + 1), index=placed.index, dtype="Int64")
        parts.append(placed.assign(rank=places.mask(placed["loses"])))
    return pd.concat(parts, ignore_index=True) if parts else board.assign(rank=pd.Series(dtype="Int64"), front=0)


def _gains(rows: pd.DataFrame, goals: Goals, split: str) -> Floats:
    """The objectives, larger is better, unknown ones -inf. -> [n, m]"""
    columns = [_known(rows, name, split) * (1 if way == "max" else -1) for name, way in goals.objectives.items()]
    values = np.column_stack(columns)
    return np.where(np.isnan(values), -np.inf, values)


def _known(rows: pd.DataFrame, metric: str, split: str) -> Floats:
    """A metric as measured on one split; where the area was not measured for all, the accuracy at eps stands in."""
    column = _column_of(metric, split)
    if metric == "robust_area" and (column not in rows or rows[column].isna().any()):
        column = _column_of("robust_accuracy", split)
    if column not in rows:
        return np.full(len(rows), np.nan)
    return rows[column].to_numpy(dtype=float, na_value=np.nan)


def _column_of(metric: str, split: str) -> str:
    return {"seconds": "train_seconds", "parameters": "parameters"}.get(metric, f"{split}_{metric}")


def _is_feasible(row: pd.Series[Any], goals: Goals) -> bool:
    """Whether no constraint is known to be broken, by the figures of the row's own tier."""
    split = "test" if row["seeds"] else "final"
    for metric, bound in goals.constraints.items():
        value = row.get(_column_of(metric, split))
        if value is not None and Goals({}, {metric: bound}).violations({metric: value})[metric] > 0:
            return False
    return True
