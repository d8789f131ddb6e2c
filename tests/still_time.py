"""A clock for tests of waiting: nobody sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Time:
    """A clock that only pauses move; `at` has what happens once it shows a time."""

    now: float = 0.0
    at: dict[float, Callable[[], object]] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)
        for due in [due for due in self.at if due <= self.now]:
            self.at.pop(due)()
