"""Suggestions that were lost with a damaged part of a store, asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.records import Record, Repeat, suggestions
from orchestrator.search import Asked

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep


def ask_again(sweep: Sweep, repeats: Sequence[Repeat]) -> None:
    """Record the suggestions whose numbers are missing, in the order in which all were asked for.

    The same number gives the same suggestion where the search does not learn (random, qmc, grid), and mostly so
    where it does; what is on record of that trial is then found again.
    """
    noted = {(repeat.trial_id, repeat.asked.number) for repeat in repeats}
    known: dict[str, dict[int, tuple[Asked, Record]]] = {name: {} for name in sweep.cells}
    for asked, record in suggestions(sweep.records, repeats):
        known[record.plan.cell][asked.number] = asked, record
    ends = {name: max(found, default=-1) for name, found in known.items()}
    for number in range(max(ends.values(), default=-1) + 1):
        for name in [name for name in sweep.cells if number <= ends[name]]:
            if number in known[name]:
                asked, record = known[name][number]
                sweep.studies[name].rebuild(asked, sweep.outcome(sweep.configured[record.plan.config_id]))
                continue
            asked, configuration = sweep.studies[name].ask()
            plan = sweep.plan(sweep.cells[name], configuration, number)
            if plan.trial_id not in sweep.records:
                following = min(later for later in known[name] if later > number)
                just_before = timedelta(microseconds=1 + following - number)
                lost = Record(plan, asked, known[name][following][1].asked_at - just_before)
                sweep.add(lost)
                sweep.recorder.asked(lost)
            elif (plan.trial_id, number) not in noted:
                sweep.recorder.repeated(plan, asked)
    sweep.ledger.flush()
