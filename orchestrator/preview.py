"""What a spec would run, before anything does."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.pretrained import names_of
from orchestrator.sampler_limits import sampler_remarks
from orchestrator.spec import Cell, Spec


def preview(spec: Spec) -> RenderableType:
    """Cells, dimensions, rungs, evaluations and how many trials there will be."""
    cells = spec.cells()
    test = spec.evaluation.test
    wanted = min(test.finalists, spec.search.trials)
    given = names_of(cells)
    finalists = wanted * sum(1 if cell.name in given else test.seeds for cell in cells)
    trials = f"{_count(len(cells), 'cell')} x {_count(spec.search.trials, 'search trial')} ({spec.search.sampler})"
    more = f"{_count(wanted, 'finalist')} x {_count(test.seeds, 'seed')} each: {finalists} more"
    lines = [
        f"{spec.name}: the spec is right.",
        f"{trials}, then {more if finalists else 'no finalists'}",
        f"objectives: {', '.join(f'{name} ({direction})' for name, direction in spec.search.objectives.items())}",
    ]
    if spec.search.constraints:
        lines.append("constraints: " + ", ".join(f"{name} {bound}" for name, bound in spec.search.constraints.items()))
    lines += [_rungs(spec), *_evaluations(spec)]
    lines += [f"{name}: a pretrained model is not trained and has no fresh seeds: one finalist each" for name in given]
    lines += sampler_remarks(spec.search.sampler, spec.search.trials, {cell.name: cell.space for cell in cells})
    return Group(*(Text(line) for line in lines), *(_dimensions(cell) for cell in cells))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _rungs(spec: Spec) -> str:
    scheduler = spec.scheduler
    if scheduler.name != "asha":
        return "rungs: none but the last epoch; no trial is stopped early"
    epochs = spec.training.get("epochs", 30)
    rule = f"grace {scheduler.grace_epochs}, then x{scheduler.reduction_factor:g}"
    if not isinstance(epochs, int):
        return f"rungs: {rule}, up to each configuration's epochs"
    return f"rungs: epochs {', '.join(map(str, spec.rungs(epochs)))} ({rule})"


def _evaluations(spec: Spec) -> list[str]:
    found = []
    named = spec.evaluation.named
    splits = {"rung": "validation", "final": "validation", "test": "test"}
    for name, split in (splits | {name: block.where for name, block in named.items()}).items():
        block = spec.evaluation.block(name)
        count = "auto" if block.examples is None else str(block.examples)
        attacks = ", ".join(_attack(attack) for attack in block.attacks)
        whose = "" if name not in named else f"; of {named[name].of}, nothing is chosen by it"
        whose += (
            ", by an attacker who does not know the defense" if name in named and named[name].surface == "none" else ""
        )
        found.append(f"{name}: {count} examples of the {split} split, {attacks}{whose}")
    return found


def _attack(block: dict[str, object] | str) -> str:
    if isinstance(block, str):
        return block
    settings = ", ".join(f"{key} {value}" for key, value in block.items() if key != "name" and value is not None)
    return f"{block['name']} ({settings})" if settings else str(block["name"])


def _dimensions(cell: Cell) -> Table:
    size = cell.space.size()
    count = "infinitely many" if size is None else f"{size:,}"
    title = Text(f"{cell.name}: {count} configurations", style="table.title")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("hole", "kind", "range", "where"):
        table.add_column(heading)
    for dimension in cell.space.dimensions():
        row = (dimension.path, dimension.kind, dimension.range, dimension.condition)
        table.add_row(*map(Text, row))  # a plain string would be read as markup: [sgd, adam] as a tag
    return table
