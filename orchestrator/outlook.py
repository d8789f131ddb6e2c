"""What a spec would run, in numbers: trials, rungs, evaluations, and what of it is known only from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.attack_passes import most_passes
from orchestrator.build import make
from orchestrator.cells import Cell
from orchestrator.composition import without
from orchestrator.drawing import drawn
from orchestrator.fates import Estimate, Fates, fates
from orchestrator.goals import Goals
from orchestrator.known_sizes import Known, known_sizes
from orchestrator.metrics import AREA_FRACTIONS
from orchestrator.parameter_count import parameter_count
from orchestrator.plausible import shared_out
from orchestrator.pretrained import is_pretrained
from orchestrator.sampler_limits import search_remarks
from orchestrator.space import Configuration
from orchestrator.spec import Spec
from orchestrator.tables import defense_kinds

DRAWN = 64  # configurations of a cell, which stand for those that the search will try
_MOST_DRAWN = 2000  # of all cells together
_MOST_NETWORKS = 24  # of a cell whose parameters are counted


@dataclass(frozen=True)
class CellOutlook:
    """One study. `size` of its space is null where a hole is continuous; `parameters` are of the smallest and the
    largest network, null where the images' shape is not known; `epochs` those of the search's trials together; `seeds`
    of each finalist.
    """

    cell: Cell
    configurations: Sequence[Configuration]
    known: Known
    trials: int
    fates: Fates
    schedules: Sequence[Sequence[int]]
    finalists: int
    seeds: int
    parameters: tuple[int, int] | None

    @property
    def size(self) -> int | None:
        return self.cell.space.size()

    @property
    def finalist_epochs(self) -> float:
        """Of one finalist, about."""
        return sum(schedule[-1] for schedule in self.schedules) / len(self.schedules)


@dataclass(frozen=True)
class EvaluationOutlook:
    """One evaluation: `examples` null where all are taken or the data decide, `levels` the radii as shares of eps.

    `attacks` are normalised blocks, each with its most forward and backward passes per image and radius (or null).
    """

    name: str
    split: str
    examples: int | None
    levels: tuple[float, ...]
    attacks: Sequence[tuple[dict[str, Any], tuple[int, int] | None]]


@dataclass(frozen=True)
class Outlook:
    """All of it."""

    spec: Spec
    cells: Sequence[CellOutlook]
    evaluations: Sequence[EvaluationOutlook]

    @property
    def search_trials(self) -> int:
        return sum(cell.trials for cell in self.cells)

    @property
    def finalist_trials(self) -> int:
        return sum(cell.finalists * cell.seeds for cell in self.cells)

    def evaluation(self, name: str) -> EvaluationOutlook:
        return next(found for found in self.evaluations if found.name == name)


def outlook(spec: Spec) -> Outlook:
    """Reads no data. The configurations that are to come are stood for by some drawn at random."""
    cells = spec.cells()
    draws = max(4, min(DRAWN, _MOST_DRAWN // len(cells)))
    seen: dict[str, Fates] = {}
    found = [_cell(spec, cell, drawn(cell.space, draws) or list(cell.space.tried())[:1], seen) for cell in cells]
    known = [cell.known for cell in found]
    names = ("rung", "final", "test", *spec.evaluation.named)
    return Outlook(spec, found, [_evaluation(spec, name, known) for name in names])


def _cell(spec: Spec, cell: Cell, configurations: Sequence[Configuration], seen: dict[str, Fates]) -> CellOutlook:
    size, known = cell.space.size(), known_sizes(cell.dataset)
    trials = spec.search.trials if size is None else min(size, spec.search.trials)
    schedules = sorted(_schedule(spec, configuration) for configuration in configurations)
    key = repr((trials, schedules))  # cells that differ in their data only fare alike
    seen[key] = seen.get(key) or fates(trials, schedules, spec.scheduler.reduction_factor)
    finalists = min(spec.evaluation.test.finalists, max(1, round(seen[key].top.mean)))
    return CellOutlook(
        cell, configurations, known, trials, seen[key], schedules, finalists, _seeds(spec, configurations),
        _parameters(configurations, known),
    )


def _seeds(spec: Spec, configurations: Sequence[Configuration]) -> int:
    """A model that exists already has one."""
    is_given = all(is_pretrained(configuration.defense) for configuration in configurations)
    return 1 if is_given else spec.evaluation.test.seeds


def _schedule(spec: Spec, configuration: Configuration) -> list[int]:
    if is_pretrained(configuration.defense):
        return [0]
    epochs: int = configuration.training["epochs"]
    return spec.rungs(epochs, make(defense_kinds(), without(configuration.defense)).ready_epoch)


def _parameters(configurations: Sequence[Configuration], known: Known) -> tuple[int, int] | None:
    if known.shape is None:
        return None
    blocks = {repr(configuration.network): configuration.network for configuration in configurations}
    counts = [parameter_count(block, known.shape) for block in list(blocks.values())[:_MOST_NETWORKS]]
    there = [count for count in counts if count is not None]
    return (min(there), max(there)) if there else None


def _evaluation(spec: Spec, name: str, known: Sequence[Known]) -> EvaluationOutlook:
    named = spec.evaluation.named.get(name)
    is_curve = Goals(spec.search.objectives, spec.search.constraints).need_curve if name == "rung" else named is None
    threat = spec.cells()[0].threat
    blocks = [block for entry in spec.evaluation.block(name).attacks for block in _blocks(entry)]
    attacks = [(block, most_passes(block, threat)) for block in blocks]
    split = named.where if named else "test" if name == "test" else "validation"
    levels = AREA_FRACTIONS if is_curve else (1.0,)
    return EvaluationOutlook(name, split, _examples(spec, name, known), levels, attacks)


def _blocks(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Of an attack, or of those that a preset stands for."""
    from orchestrator.cascade import cascade_of
    from orchestrator.tables import all_tables

    return cascade_of(entry["name"]) if entry["name"] in all_tables().cascades else [entry]


def _examples(spec: Spec, name: str, known: Sequence[Known]) -> int | None:
    """Of the first cell: where cells have different data, the spec says a number or each takes what it has."""
    asked = spec.evaluation.block(name).examples
    named = spec.evaluation.named.get(name)
    if name == "test" or (named and named.where == "test"):
        return asked or known[0].test
    if asked is not None or known[0].validation is None:
        return asked
    try:
        shares = shared_out(spec.evaluation.rung.examples, spec.evaluation.final.examples, known[0].validation)
    except ValueError:  # said by `doubtful`
        return None
    return shares[name != "rung"]


def total(estimates: Sequence[Estimate]) -> Estimate:
    """The sum; its ends are those of the parts together, so rather too far apart."""
    return Estimate(*(sum(getattr(found, end) for found in estimates) for end in ("mean", "low", "high")))


def doubtful(found: Outlook) -> list[str]:
    """What is allowed and seldom meant, and what a run will refuse once it has seen the data."""
    spec, lines = found.spec, []
    for cell in found.cells:
        if cell.size is not None and cell.size < spec.search.trials:
            lines.append(f"{cell.cell.name}: has {cell.size:,} configurations only, trials are {spec.search.trials:,}")
        if spec.evaluation.test.finalists > round(cell.fates.top.mean):
            wanted, top = spec.evaluation.test.finalists, cell.fates.top.mean
            lines.append(f"{cell.cell.name}: {wanted} finalists are wanted, and about {top:.3g} trials reach the top")
        if (size := cell.known.validation) is not None:
            try:
                shared_out(spec.evaluation.rung.examples, spec.evaluation.final.examples, size)
            except ValueError as error:
                lines.append(f"{cell.cell.name}: will be refused: {error}")
        if cell.seeds < spec.evaluation.test.seeds:
            lines.append(f"{cell.cell.name}: a pretrained model has no fresh seeds: one finalist each")
    spaces = {cell.cell.name: cell.cell.space for cell in found.cells}
    return [*lines, *search_remarks(spec.search, spaces)]
