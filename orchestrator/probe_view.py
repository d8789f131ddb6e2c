"""What a probe found and what it means for the whole sweep, for a person and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.forecast import Stage, as_rows, forecast
from orchestrator.machine import allocation_here
from orchestrator.outlook import Outlook
from orchestrator.probe import Case, CellProbe, probe


def probed(found: Outlook, seconds: float) -> tuple[RenderableType, dict[str, Any]]:
    """Probe now. -> for a person, and as JSON values"""
    timed = probe(found, seconds)
    here, _ = allocation_here(found.spec.resources)
    is_on_gpu = torch.cuda.is_available() and (here is None or here.trial.gpus > 0)
    stages = forecast(found, timed, here, is_on_gpu)
    device = torch.cuda.get_device_name() if is_on_gpu else platform.processor() or platform.machine()
    shown = Group(_costs(timed, device), _remarks(timed), _stages(stages))
    return shown, {"device": device, "probe": [asdict(cell) for cell in timed], "forecast": [asdict(s) for s in stages]}


def _costs(timed: Sequence[CellProbe], device: str) -> Table:
    title = Text(f"\ntimed on {device}: training, and attacks in ms for an image that survives, at one eps")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    evaluations = list(dict.fromkeys(name for cell in timed for name in cell.examples))
    for heading in ("cell", "case", "s/epoch", "images/s", *evaluations, "scoring"):
        table.add_column(heading, overflow="fold")
    for cell in timed:
        for place, case in enumerate(cell.cases):
            size = "" if case.parameters is None else f" ({case.parameters:,} parameters)"
            attacks = ["; ".join(f"{1e3 * cost:.3g}" for cost in case.attacks[name]) for name in evaluations]
            name = cell.cell if place == 0 else ""
            row = (name, f"{case.defense}, {case.network}{size}", f"{case.epoch:.3g}", _speed(case))
            table.add_row(*map(Text, (*row, *attacks, f"{1e3 * case.scoring:.2g}")))
    return table


def _remarks(timed: Sequence[CellProbe]) -> Group:
    loads = {f"{cell.load:.2g} s" for cell in timed if cell.load}
    lines = [f"data: loaded in {', '.join(sorted(loads))}"] if loads else []
    lines += [f"{cell.cell}: {cell.remark}" for cell in timed if cell.remark]
    return Group(*map(Text, lines))


def _stages(stages: Sequence[Stage]) -> Table:
    title = Text("\nforecast: one worker after the other, and on the slots of this machine (in brackets: a range)")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("stage", "trials", "work", "here"):
        table.add_column(heading)
    for row in as_rows(stages):
        table.add_row(*map(Text, row.values()))
    return table


def _speed(case: Case) -> str:
    return "-" if case.epoch == 0 else f"{case.images_per_second:,.0f}"
