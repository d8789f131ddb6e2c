"""A named claim about a class, and how it is broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Case = dict[str, Any]


class Broken(AssertionError):
    """A claim that does not hold: says what was seen."""


def must(holds: object, seen: str) -> None:
    """Raises Broken, with what was seen, where the claim does not hold."""
    if not holds:
        raise Broken(seen)


@dataclass(frozen=True)
class Claim:
    """`check(instance, **case)` raises Broken in a case in which the claim does not hold.

    `is_law`: without it figures would be wrong or the sweep would break; else it is advice, which an author may have
    reasons not to follow.
    """

    check: Callable[..., None]
    cases: tuple[Case, ...] = ({},)
    is_law: bool = True

    @property
    def text(self) -> str:
        """The claim in words, which are the name of its check."""
        return self.check.__name__.replace("_", " ")


def over(**axes: Sequence[Any]) -> tuple[Case, ...]:
    """Every combination: `over(norm=NORMS, factor=[1, 2])`."""
    return tuple(dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
