"""The evaluators' places on a cluster, reserved before anything starts and kept until the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster.allocation import Allocation, Bundle
from orchestrator.errors import UserError

PATIENCE = 600.0  # seconds that a sweep waits for a busy cluster
QUIET = 5.0  # seconds after which it says that it waits


@contextmanager
def reserved(
    allocation: Allocation, say: Callable[[str], None], patience: float = PATIENCE
) -> Iterator[list[dict[str, Any]]]:
    """For each evaluator what its actor's `.options(...)` are, once there is room for all and for a trial beside.

    Each place is on the node that the allocation chose, or on another one where that is gone or full, and belongs to
    its evaluator until the block ends: one that is restarted need not win it again. Raises UserError, saying what is
    free, where a cluster that is busy with other work has no room within `patience` seconds.
    """
    wanted = [(allocation.evaluator, node) for node in allocation.evaluator_nodes]
    wanted.append((allocation.trial, allocation.trial_node))
    groups: list[Any] = []
    try:
        groups += [_group(bundle, node) for bundle, node in wanted]
        _await(groups, allocation, say, patience)
        remove_placement_group(groups.pop())  # the trial's: it was there to show that one fits
        yield [evaluator_options(allocation.evaluator, group) for group in groups]
    finally:
        for group in groups:
            remove_placement_group(group)


def evaluator_options(bundle: Bundle, group: Any) -> dict[str, Any]:
    """The options of an evaluator's actor in its reserved place; deaths are retried by the pool, which knows the id."""
    return {
        "num_cpus": bundle.cpus,
        "num_gpus": bundle.gpus,
        "max_restarts": -1,
        "max_task_retries": 0,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
    }


def _group(bundle: Bundle, node: str) -> Any:
    """A place for one bundle, if possible on the node."""
    resources = {name: amount for name, amount in (("CPU", bundle.cpus), ("GPU", bundle.gpus)) if amount}
    target = {"_soft_target_node_id": node} if node else {}
    return placement_group([resources], strategy="STRICT_PACK", **target)


def _await(groups: list[Any], allocation: Allocation, say: Callable[[str], None], patience: float) -> None:
    deadline = time.monotonic() + patience
    missing = _missing(groups, min(QUIET, patience))
    if missing and patience > QUIET:
        say(f"{_lack(missing, allocation)}; waiting up to {patience:g} s for other work to end")
        missing = _missing(groups, max(0.0, deadline - time.monotonic()))
    if missing:
        raise UserError(
            f"{_lack(missing, allocation)} after {patience:g} s. Wait for the cluster's other work to end, or ask for "
            "less under resources (trial, evaluator.cpus, evaluator.gpus, evaluator.count)"
        )


def _missing(groups: list[Any], seconds: float) -> int:
    """How many of the groups have no place yet, after waiting at most so long."""
    deadline = time.monotonic() + seconds
    return sum(not group.wait(max(0.0, deadline - time.monotonic())) for group in groups)


def _lack(missing: int, allocation: Allocation) -> str:
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    shares = ", ".join(
        f"{free.get(name, 0.0):g} of {total[name]:g} {name}" for name in ("CPU", "GPU") if total.get(name)
    )
    return (
        f"the cluster has no room for {missing} of what a sweep begins with, {allocation.evaluators} evaluators "
        f"({allocation.evaluator} each) and one trial ({allocation.trial}): {shares} are free"
    )
