"""What a spec would run, before anything does: for a person, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.build import settings
from orchestrator.cluster.allocation import Allocation
from orchestrator.fates import Estimate
from orchestrator.footprint import Footprint, footprint
from orchestrator.machine import allocation_here
from orchestrator.outlook import CellOutlook, EvaluationOutlook, Outlook, doubtful, outlook
from orchestrator.spec import Cell, Spec
from orchestrator.wording import shown

_MOST_TABLES = 8  # of holes; the other cells are in the JSON


def preview(spec: Spec) -> RenderableType:
    """Cells, dimensions, rungs, evaluations, what it leaves in the store, what this machine would run at a time."""
    return render(outlook(spec))


def render(found: Outlook) -> RenderableType:
    """The same, of an outlook that is at hand."""
    spec = found.spec
    lines = [f"{spec.name}: the spec is right.", *_totals(found)]
    here, trouble = allocation_here(spec.resources)
    remarks = [*doubtful(found), *([trouble] if trouble else []), *(here.remarks if here else ())]
    parts: list[RenderableType] = [_texts(lines), _cells(found)]
    parts += [_dimensions(cell.cell) for cell in found.cells[:_MOST_TABLES]]
    if len(found.cells) > _MOST_TABLES:
        parts.append(Text(f"and {len(found.cells) - _MOST_TABLES} more cells: --json"))
    parts += [_evaluations(found), _store(spec, footprint(found)), Text(_at_a_time(here))]
    parts += [Text(f"remark: {remark}", style="yellow") for remark in dict.fromkeys(remarks)]
    return Group(*parts)


def as_json(found: Outlook) -> dict[str, Any]:
    """The same as JSON values. Estimates are mean, low and high: what nine in ten searches lie between."""
    spec = found.spec
    here, trouble = allocation_here(spec.resources)
    kept = footprint(found)
    return {
        "name": spec.name,
        "trials": {"search": found.search_trials, "finalists": found.finalist_trials},
        "search": spec.search.model_dump(exclude={"initial"}),
        "scheduler": spec.scheduler.model_dump(),
        "cells": [_cell_json(cell) for cell in found.cells],
        "evaluations": [asdict(evaluation) for evaluation in found.evaluations],
        "store": {"path": f"{spec.store}/{spec.name}", **asdict(kept)},
        "resources": None if here is None else asdict(here),
        "remarks": [*doubtful(found), *([trouble] if trouble else []), *(here.remarks if here else ())],
    }


def _cell_json(cell: CellOutlook) -> dict[str, Any]:
    return {
        "name": cell.cell.name,
        "dimensions": [asdict(dimension) for dimension in cell.cell.space.dimensions()],
        "configurations": cell.size,
        "parameters": cell.parameters,
        "data": asdict(cell.known),
        "trials": cell.trials,
        "finalists": cell.finalists,
        "reach": {str(epoch): asdict(estimate) for epoch, estimate in cell.fates.reach.items()},
        "top": asdict(cell.fates.top),
        "epochs": asdict(cell.fates.epochs),
    }


def _totals(found: Outlook) -> list[str]:
    spec = found.spec
    wanted, seeds = min(spec.evaluation.test.finalists, spec.search.trials), spec.evaluation.test.seeds
    trials = (
        f"{_count(len(found.cells), 'cell')} x {_count(spec.search.trials, 'search trial')} ({spec.search.sampler})"
    )
    finalists = wanted * sum(cell.seeds for cell in found.cells)
    more = f"{_count(wanted, 'finalist')} x {_count(seeds, 'seed')} each: {finalists} more"
    lines = [
        f"{trials}, then {more if wanted else 'no finalists'}",
        f"objectives: {', '.join(f'{name} ({direction})' for name, direction in spec.search.objectives.items())}",
    ]
    if spec.search.constraints:
        lines.append("constraints: " + ", ".join(f"{name} {bound}" for name, bound in spec.search.constraints.items()))
    scheduler = spec.scheduler
    if scheduler.name != "asha":
        return [*lines, "rungs: none but the last epoch; no trial is stopped early"]
    rule = f"grace {scheduler.grace_epochs}, then x{scheduler.reduction_factor:g}"
    return [*lines, f"rungs: {rule}, the best 1/{scheduler.reduction_factor:g} go on"]


def _cells(found: Outlook) -> Table:
    title = "cells (~: expected of trials that come in no order)"
    table = _table(title, "cell", "configurations", "parameters", "trials that reach an epoch", "epochs")
    for cell in found.cells:
        size = "infinitely many" if cell.size is None else f"{cell.size:,}"
        table.add_row(*map(Text, (
            cell.cell.name, size, _parameters(cell), _reach(cell), f"~{_short(cell.fates.epochs.mean)}",
        )))  # fmt: skip
    return table


def _parameters(cell: CellOutlook) -> str:
    if cell.parameters is None:
        return "the data decide"
    low, high = map(_short, cell.parameters)
    return low if low == high else f"{low} to {high}"


def _reach(cell: CellOutlook) -> str:
    rungs = list(cell.fates.reach.items())
    if len(rungs) > 6:  # where epochs are searched, nearly every epoch is a rung of some trial
        return f"{cell.trials}, the top of theirs: {_estimate(cell.fates.top)}"
    return "; ".join(f"{epoch}: {_estimate(estimate)}" for epoch, estimate in rungs)


def _estimate(found: Estimate) -> str:
    if found.low == found.high:
        return f"{found.mean:,.0f}"
    return f"~{_short(found.mean)} ({found.low:,.0f} to {found.high:,.0f})"


def _dimensions(cell: Cell) -> Table:
    table = _table(f"holes of {cell.name}", "hole", "kind", "range", "where")
    for dimension in cell.space.dimensions():
        row = (dimension.path, dimension.kind, dimension.range, dimension.condition)
        table.add_row(*map(Text, row))  # a plain string would be read as markup: [sgd, adam] as a tag
    return table


def _evaluations(found: Outlook) -> Table:
    title = "evaluations (passes forward + backward at most, per image and eps)"
    table = _table(title, "name", "split", "examples", "eps", "attack", "passes")
    for evaluation in found.evaluations:
        if evaluation.name == "test" and not found.spec.evaluation.test.finalists:
            continue
        where = (evaluation.name, _whose(found.spec, evaluation), _examples(evaluation), _levels(evaluation))
        for place, (block, passes) in enumerate(evaluation.attacks):
            cost = "not known" if passes is None else f"{passes[0]:,} + {passes[1]:,}"
            table.add_row(*map(Text, (*(where if place == 0 else [""] * 4), _attack(block), cost)))
    return table


def _whose(spec: Spec, evaluation: EvaluationOutlook) -> str:
    """The split; of an evaluation beside also whose models it attacks, and whether without knowing the defense."""
    named = spec.evaluation.named.get(evaluation.name)
    if named is None:
        return evaluation.split
    blind = ", by an attacker who does not know the defense" if named.surface == "none" else ""
    return f"{evaluation.split}, of {named.of}{blind}; nothing is chosen by it"


def _examples(evaluation: EvaluationOutlook) -> str:
    if evaluation.examples is None:
        return "all" if evaluation.name == "test" else "auto"
    return f"{evaluation.examples:,}"


def _levels(evaluation: EvaluationOutlook) -> str:
    return ", ".join("eps" if share == 1 else f"eps/{1 / share:g}" for share in evaluation.levels)


def _attack(block: Mapping[str, Any]) -> str:
    """Its name, and the settings that are not the defaults."""
    from orchestrator.tables import all_tables

    kind = all_tables().attacks.get(block["name"])
    known = settings(kind) if kind else {}
    own = {key: value for key, value in block.items() if key != "name"}
    own = {key: value for key, value in own.items() if key not in known or value != known[key].default}
    return " ".join([str(block["name"]), *(f"{key}={shown(value)}" for key, value in own.items())])


def _store(spec: Spec, kept: Footprint) -> Table:
    title = f"{spec.store}/{spec.name} in the end, about"
    table = _table(title, "table", "rows", "parts, at most", "bytes", "compacted", "bytes")
    for name, found in kept.tables.items():
        if found.rows is None or found.bytes is None or found.packed_bytes is None:
            table.add_row(*map(Text, (name, "the data decide", f"{found.parts:,}", "", "", "")))
            continue
        row = (
            f"{found.rows:,}",
            f"{found.parts:,}",
            _bytes(found.bytes),
            f"{found.packed}",
            _bytes(found.packed_bytes),
        )
        table.add_row(*map(Text, (name, *row)))
    low, high = kept.checkpoint_files
    sizes = "the data decide"
    if kept.checkpoint_bytes is not None:
        sizes = " to ".join(map(_bytes, kept.checkpoint_bytes))
    table.add_row(*map(Text, ("checkpoints", "", f"{low:,} to {high:,}", sizes, "", "")))
    return table


def _at_a_time(here: Allocation | None) -> str:
    if here is None:
        return "on this machine: nothing would run"
    trials = f"{_count(here.slots, 'trial')} at a time ({here.trial} each)"
    return f"on this machine: {trials}, {_count(here.evaluators, 'evaluator')} beside ({here.evaluator} each)"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=Text(f"\n{title}", style="table.title"), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _texts(lines: list[str]) -> Group:
    return Group(*map(Text, lines))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _short(number: float) -> str:
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= factor:
            return f"{number / (1e3 if letter == 'k' else factor):.3g}{letter}"
    return f"{number:,.0f}" if number >= 100 or float(number).is_integer() else f"{number:.3g}"


def _bytes(count: float) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
