"""What `robustsweep evaluate` prints."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.evaluation import Robustness

_NOTE = "Every robust accuracy is an upper bound: a stronger attack may find less. [ ]: 95 % Wilson interval."


def render_run(found: pd.DataFrame) -> RenderableType:
    """Models attacked again: what was measured before, by `final` or `test`, and now."""
    several = [name for name in ("cell", "split", "eps") if found[name].nunique() > 1]
    headings = ("trial", *several, "clean", "before", "now", "", "doubts")
    title = (
        f"{found['evaluation'].iloc[0]}: {', '.join(f'{name} {_word(found[name].iloc[0])}' for name in _same(found))}"
    )
    table = _table(title, headings)
    for _, row in found.iterrows():
        before = "" if pd.isna(row["before"]) else f"{_share(row['before_robust_accuracy'])} ({row['before']})"
        cells = [str(row["trial_id"])[:8], *(_word(row[name]) for name in several)]
        if isinstance(row["error"], str):
            last = row["error"].strip().splitlines()[-1]
            table.add_row(*map(Text, [*cells, "", before, "failed", "", last]))
            continue
        interval = f"[{row['ci_low'] * 100:.0f}, {row['ci_high'] * 100:.0f}] of {int(row['n'])}"
        now = [_share(row["clean_accuracy"]), before, _share(row["robust_accuracy"]), interval, str(int(row["doubts"]))]
        table.add_row(*map(Text, [*cells, *now]))
    return Group(table, Text(_NOTE, style="dim"))


def render_one(found: Robustness) -> RenderableType:
    """One model: what each attack left, and the doubts."""
    n = int(found.per_attack["n"].iloc[0])
    low, high = found.confidence_interval
    threat = found.threat
    title = (
        f"{threat.norm} eps {threat.eps:.4g}, {n} examples: clean {_share(found.clean_accuracy)}, "
        f"robust {_share(found.robust_accuracy)} [{low * 100:.0f}, {high * 100:.0f}]"
    )
    table = _table(title, ("attack", "eps", "attacked", "fooled", "left", "", "passes"))
    for _, row in found.per_attack.iterrows():
        passes = f"{row['forward_passes']:.0f} forward, {row['backward_passes']:.0f} backward"
        interval = f"[{row['ci_low'] * 100:.0f}, {row['ci_high'] * 100:.0f}]"
        counts = (str(int(row["n_attacked"])), str(int(row["n_fooled"])))
        cells = (row["attack"], f"{row['eps']:.4g}", *counts, _share(row["robust_accuracy"]), interval, passes)
        table.add_row(*map(Text, cells))
    doubts = [f"{doubt.severity} doubt, {doubt.kind}: {doubt.evidence}" for doubt in found.doubts] or ["no doubts"]
    return Group(table, *map(Text, doubts), Text(_NOTE, style="dim"))


def as_json(found: Robustness) -> dict[str, Any]:
    """One model's figures as JSON values."""
    low, high = found.confidence_interval
    return {
        "norm": found.threat.norm, "eps": found.threat.eps, "n": int(found.per_attack["n"].iloc[0]),
        "clean_accuracy": found.clean_accuracy, "robust_accuracy": found.robust_accuracy,
        "ci_low": low, "ci_high": high,
        "curve": [{"eps": eps, "robust_accuracy": accuracy} for eps, accuracy in found.curve.items()],
        "per_attack": [
            {str(name): value for name, value in row.items()} for row in found.per_attack.to_dict("records")
        ],
        "doubts": [
            {"kind": doubt.kind, "severity": doubt.severity, "evidence": doubt.evidence} for doubt in found.doubts
        ],
    }  # fmt: skip


def _same(found: pd.DataFrame) -> list[str]:
    return [name for name in ("split", "eps") if found[name].nunique() == 1]


def _table(title: str, headings: tuple[str, ...]) -> Table:
    heading = Text(title, style="table.title")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in headings:
        table.add_column(name, no_wrap=name != "doubts")
    return table


def _share(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.1%}"


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
