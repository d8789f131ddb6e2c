"""A store that hurts the worker which writes to it: how tests make workers die and hang."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.store import Store


@dataclass(frozen=True)
class FaultyStore(Store):
    """At the first write of rows of `table` by a worker: `fault` is "exit" or "hang".

    `times` bounds how often it strikes, over all processes: each strike leaves a hidden file in the run directory.
    """

    table: str = "epochs"
    fault: str = "exit"
    times: int = 1
    driver: int = 0

    def append(self, table: str, key: str, rows: Sequence[Any]) -> bool:
        self._strike(table)
        return super().append(table, key, rows)

    def replace(self, table: str, key: str, rows: Sequence[Any]) -> None:
        self._strike(table)
        super().replace(table, key, rows)

    def _strike(self, table: str) -> None:
        if table != self.table or os.getpid() == self.driver:
            return
        strikes = len(list(self.root.glob(".strike-*")))
        if strikes < self.times:
            (self.root / f".strike-{strikes}").touch()
            if self.fault == "exit":
                os._exit(1)
            time.sleep(600)
