"""Which trials a call means, by their ids or the beginnings of them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import UserError
from orchestrator.records import Record

MOST_SHOWN = 5


def chosen(records: dict[str, Record], wanted: Sequence[str], root: str) -> list[Record]:
    """The trials of the ids `wanted`, or beginnings of ids; none given: all that were completed.

    Raises UserError, saying why, for one that has no model, or where a beginning is that of several.
    """
    able = {key: record for key, record in records.items() if record.ended and record.ended["status"] == "completed"}
    if not able:
        raise UserError(f"{root}: no trial has been completed yet: there is no model to attack")
    found: dict[str, Record] = {}
    for given in wanted:
        fitting = [key for key in able if key.startswith(given)] if given else []
        if len(fitting) != 1:
            raise UserError(f"--trial {given}: {_why_not(given, fitting, records, able)}")
        found[fitting[0]] = able[fitting[0]]
    return list((found or able).values())


def _why_not(given: str, fitting: list[str], records: dict[str, Record], able: dict[str, Record]) -> str:
    if fitting:
        return f"is the beginning of {len(fitting)} trials: {', '.join(fitting[:MOST_SHOWN])}; give more of the id"
    others = [record for key, record in records.items() if given and key.startswith(given)]
    if others:
        status = others[0].ended["status"] if others[0].ended else "not finished"
        return f"trial {others[0].plan.trial_id} is {status}; only completed ones have a model that is kept"
    return f"no completed trial has an id that begins so; there are {', '.join(list(able)[:MOST_SHOWN])}"
