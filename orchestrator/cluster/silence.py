"""Who has given no sign of life for too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

STALL = 5.0  # seconds between two looks from which on it was the driver that was away, and heard nobody


Name = TypeVar("Name", bound=Hashable)


class Silence(Generic[Name]):
    """Workers by name, each with its last sign of life. Time in which nobody listened counts against none of them."""

    def __init__(self, time_limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._time_limit, self._clock = time_limit, clock
        self._since: dict[Name, float] = {}
        self._looked = clock()

    def heard(self, name: Name) -> None:
        self._since[name] = self._clock()

    def forget(self, name: Name) -> None:
        self._since.pop(name, None)

    def overdue(self) -> list[Name]:
        """Those that were silent for longer than the time limit. To be called again and again."""
        now = self._clock()
        if now - self._looked > STALL:
            away = now - self._looked
            self._since = {name: min(now, since + away) for name, since in self._since.items()}
        self._looked = now
        return [name for name, since in self._since.items() if now - since > self._time_limit]
