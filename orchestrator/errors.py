"""The user's mistakes: their messages are ready to print, without a traceback."""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[str | int, ...]  # keys and list positions that lead to a value of a spec


class UserError(Exception):
    """Something the user can put right; says where, what was seen and what is allowed."""


class SpecError(UserError, ValueError):
    """A spec, or a block of settings, that cannot be run as it is written; one line per problem."""


class SweepStopped(Exception):
    """A sweep that cannot go on for now, whoever's fault it is: what was finished is kept."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong at one place of a spec."""

    at: Place
    text: str
