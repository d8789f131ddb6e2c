"""Configurations drawn from a space at random, as a sampler that has learned nothing would."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.errors import SpecError
from orchestrator.holes import Hole
from orchestrator.space import Configuration, Space
from orchestrator.template import Suggest


def drawn(space: Space, count: int, seed: int = 0) -> list[Configuration]:
    """Up to `count` configurations; those are left out in which a ref finds nothing."""
    generator, found = random.Random(seed), []
    for _ in range(count if space.holes() else 1):
        with contextlib.suppress(SpecError):
            found.append(space.configure(drawing(generator)))
    return found


def drawing(generator: random.Random) -> Suggest:
    """A `suggest` for `Space.configure`: an internal coordinate at random, then the value there."""
    return lambda path, hole: hole.value(_internal(hole, generator))


def _internal(hole: Hole, generator: random.Random) -> Any:
    kind = hole.distribution()
    if isinstance(kind, CategoricalDistribution):
        return generator.choice(kind.choices)
    assert isinstance(kind, (IntDistribution, FloatDistribution))
    if isinstance(kind, IntDistribution) and not kind.log:
        return generator.randrange(kind.low, kind.high + 1, kind.step)
    if not kind.log:
        return generator.uniform(kind.low, kind.high)
    found = math.exp(generator.uniform(math.log(kind.low), math.log(kind.high)))
    return min(max(round(found) if isinstance(kind, IntDistribution) else found, kind.low), kind.high)
