"""Verdicts as a person reads them: each class, each claim, what was seen where one does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.contracts.verdicts import BROKEN, HOLDS, NOTE, Verdict

STYLES = {HOLDS: "green", NOTE: "yellow", BROKEN: "red"}


def render(verdicts: Sequence[Verdict]) -> RenderableType:
    """A table for each class, and how it ended."""
    parts: list[RenderableType] = []
    for (subject, kind), found in groupby(verdicts, lambda verdict: (verdict.subject, verdict.kind)):
        table = Table(title=Text(f"{subject} ({kind})"), title_justify="left", box=None, show_header=False)
        for verdict in found:
            outcome = Text(verdict.outcome, style=STYLES[verdict.outcome])
            table.add_row(outcome, Text(verdict.claim), Text(verdict.evidence))
        parts.append(table)
    counts = {outcome: sum(verdict.outcome == outcome for verdict in verdicts) for outcome in STYLES}
    words = {HOLDS: "claims hold", NOTE: "notes", BROKEN: "broken"}
    parts.append(Text(", ".join(f"{counts[outcome]} {words[outcome]}" for outcome in STYLES)))
    return Group(*parts)
