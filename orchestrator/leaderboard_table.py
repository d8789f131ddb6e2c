"""The leaderboard as a person reads it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.agreement import agreement
from orchestrator.analysis import Run
from orchestrator.leaderboard import names_beside
from orchestrator.protocols import is_default_name
from orchestrator.storage.schemas import PARAM

MOST_ROWS = 20


def render(run: Run) -> RenderableType:
    """The best configurations, test figures and validation figures in columns of their own, doubts beside."""
    board = run.leaderboard()
    varying = [name for name in board.columns if name.startswith(PARAM)]
    several = [name for name in ("cell", "dataset", "eps") if board[name].nunique() > 1]
    title = Text(_title(board), style="table.title")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("#", *several, "test\nrobust", "test\nclean", "validation\nrobust", "validation\nclean"):
        table.add_column(heading, no_wrap=True)
    every = names_beside(board)
    beside = [name for name in every if not is_default_name(name)]
    for heading in ("rung\nrobust", *(f"{name}\nrobust" for name in beside), "doubts", "trial", "settings"):
        table.add_column(heading, no_wrap=heading != "settings")
    for _, row in board.head(MOST_ROWS).iterrows():
        table.add_row(*map(Text, _cells(row, several, _short(varying), beside)))
    hidden = len(board) - MOST_ROWS
    notes = [f"{hidden} more in leaderboard()"] if hidden > 0 else []
    notes += [line] if (line := agreement(board).line()) else []
    unnamed = [name for name in every if name not in beside]
    notes += [f"evaluations without a name of their own are in leaderboard(): {', '.join(unnamed)}"] if unnamed else []
    notes += [
        "Every robust accuracy is an upper bound: a stronger attack may find less. [ ]: 95 % Wilson interval;",
        "x2: mean over two finalists with fresh seeds. Only test figures are free of the search's own choice.",
    ]
    return Group(table, *(Text(note, style="dim") for note in notes))


def _title(board: pd.DataFrame) -> str:
    if board.empty:
        return "nothing on record yet"
    problems = board[["dataset", "norm", "eps"]].drop_duplicates().itertuples(index=False)
    return "; ".join(f"{dataset} under {norm} eps {eps:.4g}" for dataset, norm, eps in problems)


def _short(varying: list[str]) -> dict[str, str]:
    """What to call each setting: its last word, or its whole path where two would read the same."""
    paths = [name.removeprefix(PARAM) for name in varying]
    last = [path.rsplit(".", 1)[-1] for path in paths]
    words = [word if last.count(word) == 1 else path for word, path in zip(last, paths, strict=True)]
    return dict(zip(varying, words, strict=True))


def _cells(row: pd.Series[Any], several: list[str], varying: dict[str, str], beside: list[str]) -> list[str]:
    seeds = f" x{int(row['seeds'])}" if row["seeds"] else ""
    return [
        "-" if pd.isna(row["rank"]) else str(int(row["rank"])),
        *(f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in several),
        _accuracy(row["test_robust_accuracy"], row["test_ci_low"], row["test_ci_high"]) + seeds,
        _accuracy(row["test_clean_accuracy"]),
        _accuracy(row["final_robust_accuracy"], row["final_ci_low"], row["final_ci_high"])
        + _over_seeds(row["final_robust_spread"], row["final_seeds"]),
        _accuracy(row["final_clean_accuracy"]) + _over_seeds(row["final_clean_spread"], row["final_seeds"]),
        _accuracy(row["rung_robust_accuracy"]),
        *(_accuracy(row[f"{name}_robust_accuracy"]) for name in beside),
        _remarks(row),
        str(row["trial_id"])[:8],
        " ".join(f"{word}={text}" for name, word in varying.items() if (text := _setting(row[name]))),
    ]


def _remarks(row: pd.Series[Any]) -> str:
    """Doubts, and what keeps a configuration from winning."""
    words = [f"{int(row['doubts'])}" + (f" ({int(row['severe_doubts'])} severe)" if row["severe_doubts"] else "")]
    words += ["degenerate"] if row["degenerate"] else []
    words += [str(row["status"])] if row["status"] != "completed" else []
    words += ["breaks a constraint"] if not row["feasible"] else []
    return ", ".join(words)


def _accuracy(value: float, low: float | None = None, high: float | None = None) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.1%}" if low is None or high is None else f"{value:.1%} [{low * 100:.0f}, {high * 100:.0f}]"


def _over_seeds(spread: float, seeds: int) -> str:
    """The standard deviation of a mean's figures, and of how many seeds it is."""
    return f" ±{spread * 100:.1f} x{int(seeds)}" if seeds > 1 else ""


def _setting(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
