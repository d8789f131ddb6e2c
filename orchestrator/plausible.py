"""What each section of a spec allows by itself, but not together with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.cells import Cell
from orchestrator.errors import Place, Problem
from orchestrator.initial import read_initial
from orchestrator.plausible_eps import beyond_the_range
from orchestrator.sampler_limits import sampler_problems
from orchestrator.spec_models import EvaluationSpec, SchedulerSpec, SearchSpec, TestSpec
from orchestrator.wording import shown

MOST_TRIALS = 100_000  # the driver remembers each


def size_problems(evaluation: EvaluationSpec, cells: Sequence[Cell]) -> list[Problem]:
    """Evaluations that ask for more examples than there are."""
    problems, test = [], evaluation.test.examples
    for size in {cell.dataset.validation for cell in cells if cell.dataset.validation is not None}:
        try:
            shared_out(evaluation.rung.examples, evaluation.final.examples, size)
        except ValueError as error:
            problems.append(Problem(("evaluation",), str(error)))
    for size in {cell.dataset.test for cell in cells if cell.dataset.test is not None}:
        if test is not None and test > size:
            at = ("evaluation", "test", "examples")
            problems.append(Problem(at, f"must be at most dataset.test, {size}, got {test}"))
    return problems


def count_problems(search: SearchSpec, test: TestSpec, cells: int) -> list[Problem]:
    """More trials, over all cells, than one sweep can have."""
    finalists = min(test.finalists, search.trials) * test.seeds
    total = cells * (search.trials * search.seeds + finalists)
    if total <= MOST_TRIALS:
        return []
    seeds = f" x {search.seeds} seeds" if search.seeds > 1 else ""
    text = f"{cells} cells x ({search.trials} trials{seeds} + {finalists} of finalists) are {total:,} trials"
    return [Problem(("search", "trials"), f"{text}; a sweep may have at most {MOST_TRIALS:,}")]


def search_problems(search: SearchSpec, cells: Sequence[Cell]) -> list[Problem]:
    """What the sampler cannot search."""
    spaces = {cell.name: cell.space for cell in cells}
    return [
        Problem(("search", "sampler"), text)
        for text in sampler_problems(search.sampler, len(search.objectives), spaces)
    ]


def listed_twice(attacks: Sequence[Mapping[str, Any]], at: Place) -> list[Problem]:
    """An attack that could find nothing, since the very same comes before it."""
    seen: list[Mapping[str, Any]] = []
    for attack in attacks:
        if attack in seen:
            return [Problem(at, f"each must be another attack or have other settings, got twice {shown(attack)}")]
        seen.append(attack)
    return []


def step_problems(attacks: Mapping[str, Sequence[Mapping[str, Any]]], cells: Sequence[Cell]) -> list[Problem]:
    """Steps of an attack that are longer than the pixel range: 2 where 2/255 was meant."""
    if not cells or any(cell.threat.norm != "linf" for cell in cells):
        return []
    return [
        Problem(("evaluation", stage, "attacks", place, "step_size"), beyond_the_range(block["step_size"]))
        for stage, blocks in attacks.items()
        for place, block in enumerate(blocks)
        if isinstance(block.get("step_size"), (int, float)) and block["step_size"] > 1
    ]


def shared_out(rung: int | None, final: int | None, size: int) -> tuple[int, int]:
    """How many of `size` validation examples go to the rungs and to the final evaluation; raises ValueError."""
    least = (rung or 1) + (final or 1)
    if least > size:
        raise ValueError(
            f"rung.examples and final.examples are different examples of the validation split, which has {size}: "
            f"{_told(rung)} and {_told(final)} do not fit"
        )
    rungs = rung or max(1, min(500, size // 3, size - (final or 1)))
    return rungs, final or min(2000, size - rungs)


def _told(examples: int | None) -> str:
    return "at least 1" if examples is None else str(examples)


def rung_problems(scheduler: SchedulerSpec, cells: Sequence[Cell]) -> list[Problem]:
    """A first rung that no trial reaches."""
    if scheduler.name == "none" or not cells:
        return []
    most = max(_most_epochs(cell) for cell in cells)
    if scheduler.grace_epochs <= most:
        return []
    text = f"must be at most training.epochs ({most:g}), got {scheduler.grace_epochs}"
    return [Problem(("scheduler", "grace_epochs"), text)]


def _most_epochs(cell: Cell) -> float:
    """The most epochs a trial of a cell may have, of the values that were tried when the spec was loaded."""
    epochs = [hole for path, hole in cell.space.holes().items() if path.startswith("training.epochs")]
    values = [float(value) for hole in epochs for value in hole.probes() if isinstance(value, (int, float))]
    fixed = cell.space.configure(lambda path, hole: hole.probes()[0]).training["epochs"]
    return max([float(fixed), *values])


def with_initial(entries: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> tuple[list[Cell], list[Problem]]:
    """The cells with the settings that are to be tried first; each entry goes to every cell that has all its holes."""
    fixed: dict[str, list[dict[str, Any]]] = {cell.name: [] for cell in cells}
    problems: list[Problem] = []
    for place, entry in enumerate(entries if cells else []):
        found = {cell.name: read_initial(cell.space.holes(), entry) for cell in cells}
        fitting = {name: initial for name, initial in found.items() if not initial.missing}
        wrong = [problem for initial in fitting.values() for problem in initial.problems]
        wrong = wrong if fitting else _missing(cells, entry)
        problems += [Problem(("search", "initial", place, *problem.at), problem.text) for problem in wrong]
        for name, initial in fitting.items():
            fixed[name].append(initial.internal)
    return [replace(cell, fixed=tuple(fixed[cell.name])) for cell in cells], problems


def _missing(cells: Sequence[Cell], entry: Mapping[str, Any]) -> list[Problem]:
    """Why an entry fits no cell."""
    holes = {path: hole for cell in cells for path, hole in cell.space.holes().items()}
    return read_initial(holes, entry).missing or [Problem((), "there is no cell that has all these holes")]
