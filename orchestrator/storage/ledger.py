"""The driver's pen: it writes down what the sweep learns, several records under one sync."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.lifecycle import ENDED
from orchestrator.storage.schemas import TABLES
from orchestrator.storage.store import Store
from orchestrator.told import Row

INTERVAL = 0.25  # seconds that a record may wait for others to share its part
MOST_ROWS = 2000  # of a table, after which nothing waits
_ENDS = f"events of {ENDED}"  # they say that what the other tables hold of a trial is whole, so they come after it
_ORDER = ("asks", "events", "attacks", "epochs", _ENDS, "trials")


@dataclass
class _Batch:
    """Records that wait for each other, and the name of the part that they will be: one that was cut off while it was
    written is written again in its own place."""

    name: str
    records: dict[str, list[Row]] = field(default_factory=dict)


class Ledger:
    """Appends records to the tables of a store, each once. For the one driver of a sweep.

    A record counts when `flush` has returned. What waits is written after `interval` seconds at the latest, as long as
    `flush_if_due` is called: a driver that dies loses no more than that of what others can tell again. Of the tables,
    those come first that the later ones build upon, so a driver may die between any two of them. `may_write` is called
    before anything is written, and raises where another driver has taken over.
    """

    def __init__(
        self,
        store: Store,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
        may_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.store, self.interval, self._clock, self._may_write = store, interval, clock, may_write
        self._known = {table: store.keys(table) for table in TABLES if table != "examples"}
        self._flushed = -interval
        self._session = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._batches = 0
        self._waiting = {place: self._batch() for place in _ORDER}

    def append(self, table: str, key: str, rows: Sequence[Row]) -> bool:
        """Note a record to be written: False if its key is on record, or noted, already.

        A record that differs from the one on record (costs aside) is a `conflict` in `events`; the first stays. Events
        are not compared: they say when something happened.
        """
        if key in self._known[table]:
            if table != "events":
                self._compare(table, key, rows)
            return False
        self._known[table].add(key)
        place = _ENDS if table == "events" and rows and rows[0]["kind"] == ENDED else table
        self._waiting[place].records[key] = list(rows)
        if sum(map(len, self._waiting[place].records.values())) > MOST_ROWS:
            self.flush()
        return True

    def has(self, table: str, key: str) -> bool:
        """Whether a record is written or noted."""
        return key in self._known[table]

    def flush_if_due(self) -> None:
        """Write what waits, if the last time was long enough ago."""
        if self._clock() - self._flushed >= self.interval:
            self.flush()

    def flush(self, *places: str) -> None:
        """Write what waits, of all tables or of those named."""
        for place in places or _ORDER:
            batch = self._waiting[place]
            if batch.records:
                self._may_write()
                table = "events" if place == _ENDS else place
                self.store.append_group(table, batch.name, list(batch.records.items()))
                self._waiting[place] = self._batch()
        if not places:
            self._flushed = self._clock()

    def _batch(self) -> _Batch:
        self._batches += 1
        return _Batch(f"{self._session}-{self._batches:07d}")

    def _compare(self, table: str, key: str, rows: Sequence[Row]) -> None:
        """Look at what is on record; what only waits was told by the same workers a moment ago."""
        recorded = self.store.record(table, key)
        if recorded is not None:
            self.store.note_conflict(table, key, recorded, self.store.to_table(table, rows))
