"""Whether the cheap figures at the rungs, which the search goes by, rank trials as the thorough ones do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.fronts import Floats
from orchestrator.leaderboard import PROBLEM

ALL = "all cells"
_FEWEST = 3  # trials below which an order says nothing
_SIDE_BY_SIDE = {
    "cell": "cell", "trial_id": "trial_id", "rung_robust_accuracy": "rung", "final_robust_accuracy": "final",
    "test_robust_accuracy": "test", "seeds": "seeds",
}  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """`table` has a row per cell and one of all of them: `n` trials with a rung and a final figure, Kendall's `tau`
    between the two, and `optimism`, the mean of rung minus final.

    `finalists` has a row per configuration that was tested: rung and final figures of its search trial, the mean test
    figure of its seeds. Robust accuracies at eps; null where there are fewer than three trials, or none that differ.
    """

    table: pd.DataFrame
    finalists: pd.DataFrame

    def line(self) -> str:
        """The overall figure in a sentence; nothing where there is none."""
        whole, each = self.table[self.table["cell"] == ALL].iloc[0], self.table[self.table["cell"] != ALL]
        if pd.isna(whole["tau"]):
            return ""
        text = f"rung and final agree: Kendall's tau {whole['tau']:.2f} over {whole['n']} trials"
        known = each[each["tau"].notna()]
        if len(each) < 2 or known.empty:
            return text
        return f"{text} ({', '.join(f'{row.cell} {row.tau:.2f} over {row.n}' for row in known.itertuples())})"


def agreement(board: pd.DataFrame) -> Agreement:
    """From the rows of a leaderboard. Degenerate and failed configurations are left out: none of them can win.

    Of all cells together, those pairs count that have one dataset and threat in common: others do not compare.
    """
    able = board[board["rank"].notna()]
    both = able.dropna(subset=["rung_robust_accuracy", "final_robust_accuracy"])
    rows = [_row(str(cell), group) for cell, group in both.groupby("cell", sort=False)]
    columns = {"cell": "object", "n": "int64", "tau": "float64", "optimism": "float64"}
    table = pd.DataFrame([*rows, _row(ALL, both)]).astype(columns)
    tested = able[able["test_robust_accuracy"].notna()]
    return Agreement(table, tested[list(_SIDE_BY_SIDE)].rename(columns=_SIDE_BY_SIDE).reset_index(drop=True))


def _row(cell: str, trials: pd.DataFrame) -> dict[str, Any]:
    rung, final = (trials[f"{name}_robust_accuracy"].to_numpy(dtype=float) for name in ("rung", "final"))
    problems = trials.groupby(PROBLEM, dropna=False).ngroup().to_numpy()
    tau = kendall_tau(rung, final, problems) if len(trials) >= _FEWEST else math.nan
    return {"cell": cell, "n": len(trials), "tau": tau, "optimism": np.mean(rung - final) if len(trials) else math.nan}


def kendall_tau(x: Floats, y: Floats, groups: np.ndarray[Any, Any]) -> float:
    """Kendall's tau-b (Kendall 1945) over the pairs within a group: 1 is one order, -1 the opposite; ties allowed for.

    NaN where no two differ. Without scipy, which takes a second to load that no reader of a leaderboard should wait.
    """
    agreeing = differ_x = differ_y = 0.0
    for place in range(len(x) - 1):
        later = slice(place + 1, None)
        here = groups[later] == groups[place]
        signs_x, signs_y = np.sign(x[later] - x[place])[here], np.sign(y[later] - y[place])[here]
        agreeing += float((signs_x * signs_y).sum())
        differ_x += np.count_nonzero(signs_x)
        differ_y += np.count_nonzero(signs_y)
    return agreeing / math.sqrt(differ_x * differ_y) if differ_x and differ_y else math.nan
