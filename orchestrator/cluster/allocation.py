"""Who gets what: trial slots and evaluators on the nodes of a cluster, decided before anything starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.spec import ResourcesSpec

SLACK = 1e-9  # shares such as 0.1 do not add up to the bit


@dataclass(frozen=True)
class Node:
    """What one node of the cluster has; `id` is Ray's, "" where it does not matter."""

    cpus: float
    gpus: float
    id: str = ""


@dataclass(frozen=True)
class Bundle:
    """What one worker needs, on one node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" + {self.gpus:g} GPU" if self.gpus else "")


@dataclass(frozen=True)
class Allocation:
    """Slots for trials, evaluators beside them, and what was changed from what was asked (`remarks`).

    `evaluator_nodes` has the node of each evaluator, `trial_node` one on which a trial fits beside them (ids of nodes).
    """

    trial: Bundle
    evaluator: Bundle
    slots: int
    evaluators: int
    remarks: tuple[str, ...] = ()
    evaluator_nodes: tuple[str, ...] = ()
    trial_node: str = ""


def allocate(wanted: ResourcesSpec, nodes: Sequence[Node]) -> Allocation:
    """Fit trials and evaluators on the nodes so that none of them waits for ever.

    Raises UserError where not even one trial and one evaluator fit side by side, or where more evaluators are
    asked for than fit beside one trial.
    """
    remarks: list[str] = []
    has_gpu = any(node.gpus for node in nodes)
    trial = _bundle("trial", wanted.trial.cpus, wanted.trial.gpus, nodes, has_gpu, remarks)
    evaluator = _bundle("evaluator", wanted.evaluator.cpus, wanted.evaluator.gpus, nodes, has_gpu, remarks)
    fits = _fits(trial, evaluator, 1, nodes)
    if fits < 1:
        raise UserError(
            f"resources: one trial ({trial}) and one evaluator ({evaluator}) do not fit beside each other on "
            f"{_describe(nodes)}: ask for less, or let them be auto"
        )
    asked = wanted.evaluator.count
    evaluators = _share(trial, evaluator, nodes) if asked == "auto" else int(asked)
    placed = _places(trial, evaluator, evaluators, nodes)
    slots = len(placed[1]) if placed else 0
    if placed is None or slots < 1:
        raise UserError(
            f"resources.evaluator.count: {evaluators} evaluators ({evaluator}) leave no room for a trial ({trial}) on "
            f"{_describe(nodes)}: at most {_most_evaluators(trial, evaluator, nodes)}"
        )
    if wanted.max_concurrent != "auto":
        if int(wanted.max_concurrent) > slots:
            remarks.append(
                f"resources.max_concurrent: {wanted.max_concurrent} trials do not fit at once, running {slots}"
            )
        slots = min(slots, int(wanted.max_concurrent))
    return Allocation(trial, evaluator, slots, evaluators, tuple(remarks), placed[0], placed[1][0])


def _bundle(
    who: str, cpus: float | str, gpus: float | str, nodes: Sequence[Node], has_gpu: bool, remarks: list[str]
) -> Bundle:
    total = sum(node.cpus for node in nodes)
    auto_cpus = 1.0 if total >= 2 else total / 2
    if gpus == "auto":
        gpus = 0.5 if has_gpu else 0.0
    elif float(gpus) > 0 and not has_gpu:
        remarks.append(f"resources.{who}.gpus: {gpus:g} asked for, but there is no GPU here: running on CPUs")
        gpus = 0.0
    return Bundle(auto_cpus if cpus == "auto" else float(cpus), float(gpus))


def _share(trial: Bundle, evaluator: Bundle, nodes: Sequence[Node]) -> int:
    """A quarter of the places for evaluators, at least one."""
    places = _fits(trial, evaluator, 1, nodes) + 1
    wanted = max(1, places // 4)
    return max(count for count in range(1, wanted + 1) if _fits(trial, evaluator, count, nodes) >= 1)


def _most_evaluators(trial: Bundle, evaluator: Bundle, nodes: Sequence[Node]) -> int:
    count = 1
    while _fits(trial, evaluator, count + 1, nodes) >= 1:
        count += 1
    return count


def _fits(trial: Bundle, evaluator: Bundle, evaluators: int, nodes: Sequence[Node]) -> int:
    """How many trials fit once that many evaluators are placed; -1 if those do not fit."""
    placed = _places(trial, evaluator, evaluators, nodes)
    return len(placed[1]) if placed else -1


def _places(
    trial: Bundle, evaluator: Bundle, evaluators: int, nodes: Sequence[Node]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The node of each evaluator, the smallest nodes first, and of each trial that fits beside; None if they do not."""
    of_evaluators: list[str] = []
    of_trials: list[str] = []
    for node in sorted(nodes, key=lambda node: (node.gpus, node.cpus)):
        room = _Room(node)
        while len(of_evaluators) < evaluators and room.take(evaluator):
            of_evaluators.append(node.id)
        while room.take(trial):
            of_trials.append(node.id)
    return (tuple(of_evaluators), tuple(of_trials)) if len(of_evaluators) == evaluators else None


class _Room:
    """What is free on a node, GPU by GPU: a share of a GPU cannot be taken from two of them."""

    def __init__(self, node: Node) -> None:
        self.cpus = node.cpus
        self.gpus = [1.0] * math.floor(node.gpus + SLACK)

    def take(self, bundle: Bundle) -> bool:
        """Place a bundle if it fits; a share goes to the fullest GPU that has room for it."""
        if bundle.cpus > self.cpus + SLACK:
            return False
        if bundle.gpus > 1:
            whole = [place for place, free in enumerate(self.gpus) if free > 1 - SLACK]
            if len(whole) < bundle.gpus:
                return False
            for place in whole[: int(bundle.gpus)]:
                self.gpus[place] = 0.0
        elif bundle.gpus > 0:
            fitting = [place for place, free in enumerate(self.gpus) if free + SLACK >= bundle.gpus]
            if not fitting:
                return False
            self.gpus[min(fitting, key=lambda place: self.gpus[place])] -= bundle.gpus
        self.cpus -= bundle.cpus
        return True


def _describe(nodes: Sequence[Node]) -> str:
    return "; ".join(f"a node with {Bundle(node.cpus, node.gpus)}" for node in nodes) or "a cluster without nodes"
