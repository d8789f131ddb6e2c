"""CMA-ES over the numbers of a space, in a form that a rebuilt study goes on with: nothing of it is pickled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from orchestrator.lowdiscrepancy import coordinate, share_of
from orchestrator.points import Points, Worth
from orchestrator.seeds import seed_of

SIGMA = 1 / 6  # of the unit interval that each hole is stretched over
_BELOW_ONE = 1 - 2**-53
GENERATION, SHARES = "cma:generation", "cma:shares"


@dataclass
class _Generation:
    """The first suggestions of a generation, which its search goes on from; where they lie, and what they are worth."""

    shares: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    worth: dict[int, Worth] = field(default_factory=dict)


class EvolvingPoints(Points):
    """Points drawn from a normal distribution that moves to where the better ones were (Hansen, Ostermeier 2001).

    `holes` are numbers, at least two; the others are left to chance. A suggestion belongs to the generation that was
    current when it was asked for. When the first of a generation, as many as a population, have ended, the next one
    begins; only their order counts. What was asked for and ended decides what comes next, not when.
    """

    def __init__(
        self, holes: Mapping[str, BaseDistribution], seed: int, start: Mapping[str, Any] | None = None
    ) -> None:
        """`start` are internal coordinates at which the search begins, by path; the middle where it has none."""
        self._holes, self._seed = dict(holes), seed
        self._size = 4 + math.floor(3 * math.log(len(holes)))
        bounds = np.tile([0.0, 1.0], (len(holes), 1))
        known = start or {}
        mean = np.array([share_of(kind, known[path]) if path in known else 0.5 for path, kind in holes.items()])
        self._cma = CMA(mean, SIGMA, bounds, seed=seed, population_size=self._size)
        self._generations = [_Generation()]
        self._home: dict[int, int] = {}  # the generation of each suggestion, by place

    def point(self, place: int) -> dict[str, Any]:
        """The internal coordinates of a new suggestion, by path."""
        self._cma.reseed_rng(seed_of("cma", self._seed, place))
        shares = np.clip(self._cma.ask(), 0.0, _BELOW_ONE)
        self._note(place, len(self._generations) - 1, shares)
        pairs = zip(self._holes.items(), shares, strict=True)
        return {path: coordinate(kind, float(share)) for (path, kind), share in pairs}

    def attrs(self, place: int) -> dict[str, Any]:
        """What must be on record of a suggestion, as JSON values."""
        home = self._home[place]
        shares = self._generations[home].shares.get(place)
        return {GENERATION: home} | ({} if shares is None else {SHARES: [float(share) for share in shares]})

    def restore(self, place: int, attrs: Mapping[str, Any]) -> None:
        """Put back a suggestion from its record."""
        if GENERATION in attrs:
            self._note(place, int(attrs[GENERATION]), np.array(attrs.get(SHARES, [])))

    def ended(self, place: int, worth: Worth) -> None:
        """A suggestion has ended."""
        if place not in self._home:
            return
        generation = self._generations[self._home[place]]
        if place in generation.shares:
            generation.worth[place] = worth
        self._go_on()

    def _note(self, place: int, home: int, shares: NDArray[np.float64]) -> None:
        while len(self._generations) <= home:
            self._generations.append(_Generation())
        self._home[place] = home
        if len(self._generations[home].shares) < self._size:
            self._generations[home].shares[place] = shares

    def _go_on(self) -> None:
        """Begin the next generation where the current one is complete; a rebuilt search catches up here."""
        while self._cma.generation < len(self._generations):
            current = self._generations[self._cma.generation]
            if len(current.worth) < self._size:
                return
            order = sorted(current.shares, key=lambda place: (current.worth[place], place))
            self._cma.tell([(current.shares[place], float(rank)) for rank, place in enumerate(order)])
            if self._cma.generation == len(self._generations):
                self._generations.append(_Generation())


def numbers_of(holes: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """The holes that CMA-ES can move in: those that are no choice."""
    return {
        path: kind
        for path, kind in holes.items()
        if not isinstance(kind, CategoricalDistribution) and not kind.single()
    }
