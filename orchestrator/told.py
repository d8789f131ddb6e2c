"""Records on their way from a worker to the store, by way of the driver who writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
Record: TypeAlias = tuple[str, str, list[Row]]  # table, key, rows: told again under the same key, it is the same record
Told: TypeAlias = list[Record]


def told_to_json(told: Iterable[Record]) -> str:
    """As text: Tune flattens mappings, and checkpoints hold JSON."""
    return json.dumps(list(told), default=_moment)


def told_from_json(text: str) -> Told:
    """The same back."""
    return [(table, key, [_row(row) for row in rows]) for table, key, rows in json.loads(text)]


def rows_for(told: Sequence[Record], table: str) -> list[Row]:
    """The rows that records hold for one table, in order."""
    return [row for name, _, rows in told if name == table for row in rows]


def _moment(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a record holds JSON values and times, got {type(value).__name__}: {value!r:.80}")


def _row(row: Row) -> Row:
    return row | {"at": datetime.fromisoformat(row["at"])} if "at" in row else row
