"""What the trials of a configuration come to: figures that are means over its seeds, and what its study hears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from orchestrator.goals import Goals
from orchestrator.records import Record
from orchestrator.search import Outcome
from orchestrator.spec_models import METRICS

Headline = Callable[[str], str]  # by stage, what the evaluation by whose figures its trials are ranked is called

_OF_THE_END = ("status", "error", "stage", "seed", "started_at")


def is_measured(record: Record, headline: Headline) -> bool:
    """Whether a trial has the figures that it is told and ranked by."""
    return headline(record.plan.stage) in record.evaluations


def facts(record: Record) -> dict[str, Any]:
    """Of an ended trial: what is known without an evaluation, `seconds` of training and `parameters` among them."""
    said = dict(record.ended or {})
    extra = {"seconds": said["train_seconds"]} if "train_seconds" in said else {}
    extra |= {"parameters": record.parameters} if record.parameters is not None else {}
    return {name: value for name, value in said.items() if name not in _OF_THE_END} | extra


def mean_figures(records: Sequence[Record], headline: Headline) -> dict[str, float]:
    """The metrics of evaluated trials, each the mean over them."""
    found = [record.evaluations[headline(record.plan.stage)] | facts(record) for record in records]
    names = [name for name in METRICS if all(figures.get(name) is not None for figures in found)]
    return {name: fmean(float(figures[name]) for figures in found) for name in names}


def spread_figures(records: Sequence[Record], headline: Headline) -> dict[str, float]:
    """The standard deviation of each metric over evaluated trials (n - 1 below it); 0 for a single one."""
    found = [record.evaluations[headline(record.plan.stage)] | facts(record) for record in records]
    names = [name for name in METRICS if all(figures.get(name) is not None for figures in found)]
    if len(found) < 2:
        return dict.fromkeys(names, 0.0)
    return {name: stdev(float(figures[name]) for figures in found) for name in names}


def measured(records: Sequence[Record], headline: Headline) -> list[Record]:
    """The trials that have the figures which are due at the top."""
    return [record for record in records if is_measured(record, headline)]


def outcome_of(records: Sequence[Record], goals: Goals, headline: Headline, risk: float = 0.0) -> Outcome | None:
    """How a configuration ended, as its study hears it, from the trials of its seeds; None while one is under way.

    Its values are means over the seeds that completed, each made worse by `risk` standard deviations. It was pruned
    if its first seed was; it failed if none completed. One degenerate model makes it degenerate.
    """
    ends = [str(record.ended["status"]) for record in records if record.ended]
    completed = [record for record in records if record.ended and record.ended["status"] == "completed"]
    if not records or len(ends) < len(records) or len(measured(completed, headline)) < len(completed):
        return None
    if completed:
        figures = mean_figures(completed, headline)
        degenerate = float(any(record.is_degenerate for record in completed))
        constraints = goals.violations(figures) | {"degenerate": degenerate}
        cautious = goals.worsened(figures, spread_figures(completed, headline), risk) if risk else figures
        return Outcome("completed", goals.values(cautious), None, constraints)
    first = records[0]
    known = {epoch: facts(first) | found for epoch, found in sorted(first.rungs.items())}
    rungs = {epoch: goals.values(found)[0] for epoch, found in known.items() if goals.are_known(found)}
    degenerate = float(bool(first.degenerate_rungs & set(list(rungs)[-1:])))
    return Outcome(ends[0], None, rungs, {"degenerate": degenerate})
