"""Evaluations beside `final` and `test`, as columns of the leaderboard: named ones, and those of `evaluate`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from orchestrator.protocols import RUNG, SELECTING, base_of
from orchestrator.statistics import wilson_interval

FIGURES = ("robust_accuracy", "ci_low", "ci_high", "clean_accuracy", "n")
COLUMNS = ["trial_id", "evaluation", "split", "eps", "position", "clean_accuracy", "robust_accuracy", "n"]


def figures_beside(attacks: pd.DataFrame, trials: pd.DataFrame, configuration: list[str]) -> pd.DataFrame:
    """A row per configuration that has any, with `NAME_robust_accuracy` and so on for each evaluation beside.

    At the threat's eps, after the whole cascade; means over the seeds of the finalists, or of the search trial where no
    finalist was measured. An evaluation on both splits has columns for each: `NAME_test_...`, `NAME_validation_...`.
    """
    attacks = attacks[[base_of(name) not in (RUNG, *SELECTING) for name in attacks["evaluation"]]]
    rows = attacks.merge(trials[["trial_id", "stage", "eps", *_without_eps(configuration)]], on="trial_id")
    rows = rows[np.isclose(rows["eps_x"].astype(float), rows["eps_y"].astype(float), rtol=1e-9, atol=0)]
    last = (
        rows.rename(columns={"eps_y": "eps"})
        .sort_values("position")
        .drop_duplicates(["trial_id", "evaluation"], keep="last")
    )
    found = pd.DataFrame(index=pd.MultiIndex.from_frame(trials[configuration].drop_duplicates()))
    for name, mine in last.groupby("evaluation", sort=True):
        for split, part in mine.groupby("split", sort=True):
            prefix = str(name) if mine["split"].nunique() == 1 else f"{name}_{split}"
            found = found.join(_pooled(part, prefix, configuration))
    return found


def names_of(columns: pd.Index[str], known: list[str]) -> list[str]:
    """What the evaluations are called whose columns a leaderboard has beside the `known` ones."""
    ending = "_robust_accuracy"
    return [name.removesuffix(ending) for name in columns if name.endswith(ending) and name not in known]


def _pooled(rows: pd.DataFrame, prefix: str, configuration: list[str]) -> pd.DataFrame:
    """Means over the trials of each configuration: its finalists, else its search trial."""
    is_final = rows["stage"] == "finalist"
    has_finalist = is_final.groupby([rows[name] for name in configuration], dropna=False).transform("any")
    groups = rows[is_final | ~has_finalist].groupby(configuration, sort=False, dropna=False)
    found = groups.agg(
        robust_accuracy=("robust_accuracy", "mean"), clean_accuracy=("clean_accuracy", "mean"), n=("n", "min")
    )
    intervals = [
        wilson_interval(float(mean) * int(n), int(n))
        for mean, n in zip(found["robust_accuracy"], found["n"], strict=True)
    ]
    found[["ci_low", "ci_high"]] = np.array(intervals).reshape(-1, 2)
    return found[list(FIGURES)].add_prefix(f"{prefix}_")


def _without_eps(configuration: list[str]) -> list[str]:
    return [name for name in configuration if name != "eps"]
