"""Why a search is over before it has the trials that were asked for."""

from __future__ import annotations

from orchestrator.sweep import REPEATS_IN_A_ROW, Sweep


def exhausted_searches(sweep: Sweep) -> list[str]:
    """A sentence for each cell that will have fewer trials than the spec wants: nothing new is suggested there."""
    wanted = sweep.spec.search.trials
    return [
        f"the search in {cell} is over at {sweep.asked(cell)} of {wanted} trials: its last {REPEATS_IN_A_ROW} "
        "suggestions were configurations on record; a larger space is a sweep under another name"
        for cell in sorted(sweep.exhausted)
        if sweep.asked(cell) < wanted
    ]
