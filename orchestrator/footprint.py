"""How much a finished sweep leaves in its store, about: rows, part files and bytes of each table, and checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.outlook import Outlook

ROWS_PACKED = 2_000_000  # of one part after `robustsweep compact`

# Bytes of a part before compaction and of a row after it, zstd, as measured on sweeps/quickstart.yaml (12 trials, 6,240
# rows of examples, two cells). Of `examples`, whose parts are large, what a row adds and the rest.
_PART = {"asks": 8400, "trials": 13800, "epochs": 2900, "attacks": 7300, "examples": 4500, "events": 2800}
_ROW = {"asks": 840, "trials": 1350, "epochs": 73, "attacks": 120, "examples": 6.4, "events": 135}
_JSON = 1_900, 6_000  # bytes beside the tensors of a checkpoint, at a first rung and at a later one
_FLOAT = 4


@dataclass(frozen=True)
class TableFootprint:
    """`parts` are the files at most before compaction, `packed` those after it; null where the data decide."""

    rows: int | None
    parts: int
    bytes: int | None
    packed: int | None
    packed_bytes: int | None


@dataclass(frozen=True)
class Footprint:
    """Tables by name, doubts among the events not counted; checkpoint files and bytes from, to.

    One or two epochs of each trial are kept.
    """

    tables: dict[str, TableFootprint]
    checkpoint_files: tuple[int, int]
    checkpoint_bytes: tuple[int, int] | None


def footprint(found: Outlook) -> Footprint:
    """By the expected numbers of trials, rungs and evaluations."""
    seeds = found.spec.evaluation.test.seeds
    finalists = found.finalist_trials
    trials = found.search_trials + finalists
    top = sum(cell.fates.top.mean for cell in found.cells)
    searched = sum(estimate.mean for cell in found.cells for estimate in cell.fates.reach.values())
    rungs = searched + sum(cell.finalists * seeds * _mean([len(s) for s in cell.schedules]) for cell in found.cells)
    epochs = sum(cell.fates.epochs.mean + cell.finalists * seeds * cell.finalist_epochs for cell in found.cells)
    stages = {"rung": rungs, "final": top, "test": float(finalists)}
    attacks = sum(count * _figures(found, name) for name, count in stages.items())
    evaluated = top + finalists
    rows = {
        "asks": trials, "trials": trials, "epochs": epochs, "attacks": attacks,
        "examples": _examples(found, stages), "events": 2 * rungs + trials + 2 * evaluated,
    }  # fmt: skip
    parts = {
        "asks": trials, "trials": trials, "epochs": rungs, "attacks": rungs + evaluated,
        "examples": evaluated, "events": rungs + trials + evaluated,
    }  # fmt: skip
    tables = {name: _table(name, rows[name], math.ceil(parts[name])) for name in rows}
    return Footprint(tables, (2 * trials, 4 * trials), _checkpoints(found))


def _table(name: str, rows: float | None, parts: int) -> TableFootprint:
    if rows is None:
        return TableFootprint(None, parts, None, None, None)
    packed = math.ceil(rows * _ROW[name])
    whole = parts * _PART[name] + (packed if name == "examples" else 0)
    return TableFootprint(math.ceil(rows), parts, whole, max(1, math.ceil(rows / ROWS_PACKED)), packed)


def _figures(found: Outlook, name: str) -> int:
    evaluation = found.evaluation(name)
    return len(evaluation.levels) * len(evaluation.attacks)


def _examples(found: Outlook, stages: dict[str, float]) -> float | None:
    """The rungs leave none there."""
    total = 0.0
    for name in ("final", "test"):
        examples = found.evaluation(name).examples
        if examples is None and stages[name]:
            return None
        total += stages[name] * _figures(found, name) * (examples or 0)
    return total


def _checkpoints(found: Outlook) -> tuple[int, int] | None:
    """Of the smallest networks once, of the largest twice: weights, what the optimizer keeps beside, the average."""
    low = high = 0
    for cell in found.cells:
        if cell.parameters is None:
            return None
        trials = cell.trials + cell.finalists * found.spec.evaluation.test.seeds
        copies = [_copies(configuration.training) for configuration in cell.configurations]
        low += trials * (_FLOAT * cell.parameters[0] * min(copies) + _JSON[0])
        high += 2 * trials * (_FLOAT * cell.parameters[1] * max(copies) + _JSON[1])
    return low, high


def _copies(training: dict[str, object]) -> int:
    """How many numbers of a checkpoint there are for each weight."""
    kept = 2 if training["optimizer"] == "adam" else int(bool(training["momentum"]))
    return 1 + kept + int(bool(training["ema"]))


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)
