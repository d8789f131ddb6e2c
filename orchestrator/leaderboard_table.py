"""The leaderboard as a person reads it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.analysis import Run
from orchestrator.schemas import PARAM

MOST_ROWS = 20


def render(run: Run) -> RenderableType:
    """The best configurations, test figures and validation figures in columns of their own, doubts beside."""
    board = run.leaderboard()
    varying = [name for name in board.columns if name.startswith(PARAM)]
    several = [name for name in ("cell", "dataset", "eps") if board[name].nunique() > 1]
    table = Table(title=_title(board), title_justify="left", header_style="bold")
    for heading in ("#", *several, "test robust", "test clean", "validation robust", "validation clean", "rung robust"):
        table.add_column(heading, justify="right" if "robust" in heading or "clean" in heading else "left")
    for heading in ("doubts", *(name.removeprefix(PARAM) for name in varying), "parameters", "trained", "trial"):
        table.add_column(heading)
    for _, row in board.head(MOST_ROWS).iterrows():
        table.add_row(*_cells(row, several, varying))
    hidden = len(board) - MOST_ROWS
    notes = [f"{hidden} more in leaderboard()"] if hidden > 0 else []
    notes.append(
        "Every robust accuracy is an upper bound: a stronger attack may find less. [ ] is a 95 % Wilson interval."
    )
    return Group(table, *(Text(note, style="dim") for note in notes))


def _title(board: pd.DataFrame) -> str:
    threats = ", ".join(
        f"{norm} eps {eps:.4g}" for norm, eps in board[["norm", "eps"]].drop_duplicates().itertuples(index=False)
    )
    return f"{', '.join(board['dataset'].unique())} under {threats}" if len(board) else "nothing on record yet"


def _cells(row: pd.Series[Any], several: list[str], varying: list[str]) -> list[str]:
    rank = "-" if pd.isna(row["rank"]) else str(int(row["rank"]))
    marks = [word for word in ("degenerate",) if row[word]] + ([row["status"]] if row["status"] != "completed" else [])
    doubts = f"{int(row['doubts'])}" + (f" ({int(row['severe_doubts'])} severe)" if row["severe_doubts"] else "")
    seeds = f" x{int(row['seeds'])}" if row["seeds"] else ""
    return [
        rank,
        *(f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in several),
        _accuracy(row["test_robust_accuracy"], row["test_ci_low"], row["test_ci_high"]) + seeds,
        _accuracy(row["test_clean_accuracy"]),
        _accuracy(row["final_robust_accuracy"], row["final_ci_low"], row["final_ci_high"]),
        _accuracy(row["final_clean_accuracy"]),
        _accuracy(row["rung_robust_accuracy"]),
        " ".join([doubts, *marks]),
        *(_setting(row[name]) for name in varying),
        "" if pd.isna(row["parameters"]) else f"{int(row['parameters']):,}",
        "" if pd.isna(row["train_seconds"]) else f"{row['train_seconds']:.0f} s",
        str(row["trial_id"])[:8],
    ]


def _accuracy(value: float, low: float | None = None, high: float | None = None) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.1%}" if low is None or high is None else f"{value:.1%} [{low * 100:.0f}-{high * 100:.0f}]"


def _setting(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
