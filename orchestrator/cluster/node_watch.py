"""Whether a node was lost a moment ago: Ray does not say of a worker that died whether its node went with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray

MOMENTS = 30.0  # seconds after the loss of a node in which workers may die of it
LOOK_EVERY = 5.0  # seconds


def dead_nodes() -> set[str]:
    """The ids of the nodes that the cluster has lost since it was started."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"] for node in nodes if not node["Alive"]}


class NodeWatch:
    """Knows the nodes that were dead when it was made, and notes when others follow."""

    def __init__(self, dead: Callable[[], set[str]] = dead_nodes, clock: Callable[[], float] = time.monotonic) -> None:
        self._find_dead, self._clock = dead, clock
        self._dead, self._looked, self._lost_at = dead(), clock(), float("-inf")

    def look_if_due(self) -> None:
        """To be called again and again, so that a loss is dated well."""
        if self._clock() - self._looked >= LOOK_EVERY:
            self._look()

    def has_lost_one(self) -> bool:
        """Whether a node was lost in the last `MOMENTS` seconds."""
        self._look()
        return self._clock() - self._lost_at < MOMENTS

    def _look(self) -> None:
        dead, self._looked = self._find_dead(), self._clock()
        if dead - self._dead:
            self._dead, self._lost_at = dead, self._looked
