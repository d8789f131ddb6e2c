"""Says how a sweep is getting on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class Progress:
    """Shows lines as things happen, and below them, on a terminal, where the sweep stands.

    The live part is redrawn by a thread of its own, since Tune's loop may be busy for seconds.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stage, self._total, self._done_before = "", 0, 0
        self._counts: Mapping[str, int] = {}
        self._best = ""
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def line(self, text: str) -> None:
        """Something happened that is worth a line."""
        self.console.print(Text(text), soft_wrap=True)

    def stage(self, name: str, total: int, counts: Mapping[str, int]) -> None:
        """A stage of `total` trials begins; those that `counts` has as finished do not enter the forecast."""
        self._stage, self._total, self._counts = name, total, counts
        self._done_before, self._started = _finished(counts), time.monotonic()

    def update(self, counts: Mapping[str, int], best: str) -> None:
        """How many trials are in which state, and the best so far."""
        self._counts, self._best = counts, best

    def _picture(self) -> RenderableType:
        done = _finished(self._counts)
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            Text(f"{self._stage} {done}/{self._total}"),
            ProgressBar(total=max(self._total, 1), completed=done, width=30),
            Text(self._time_left(done)),
        )
        states = "  ".join(f"{count} {state}" for state, count in sorted(self._counts.items()) if count)
        return Group(grid, Text(states), Text(f"best so far: {self._best}" if self._best else ""))

    def _time_left(self, done: int) -> str:
        elapsed = time.monotonic() - self._started
        finished = done - self._done_before
        if not finished:
            return f"{_clock(elapsed)} so far"
        return f"{_clock(elapsed)} so far, about {_clock(elapsed / finished * (self._total - done))} left"


def _finished(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in ("completed", "pruned", "failed"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
