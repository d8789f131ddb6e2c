"""One driver per run directory, one compaction beside it: the second is refused, a killed one leaves no lock behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from orchestrator.storage.files import Files
from orchestrator.storage.hold import Held, holding

__all__ = ["COMPACTING", "NAME", "Held", "compacting", "driving"]

NAME = ".driver"  # hidden: readers of the run directory pass it by
COMPACTING = ".compacting"


def driving(files: Files, say: Callable[[str], None] = lambda _: None) -> AbstractContextManager[Held]:
    """Hold the run for this process, as `holding` says."""
    return holding(files, NAME, "driver", say)


def compacting(files: Files, say: Callable[[str], None] = lambda _: None) -> AbstractContextManager[Held]:
    """Hold the place of the one that packs parts, and that deletes what a compaction left behind."""
    return holding(files, COMPACTING, "compaction", say)
