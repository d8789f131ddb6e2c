"""Specs over the small tables, how tests load them, and how they draw from a space."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from small_tables import TABLES

from orchestrator.errors import SpecError
from orchestrator.holes import Hole
from orchestrator.spec import Spec, load_spec

BASE: dict[str, Any] = {
    "name": "tried",
    "dataset": {"name": "toy"},
    "threat": {"norm": "linf", "eps": "8/255"},
    "network": "lenet",
    "defense": "plain",
}
WHOLE = """\
# Does it work?
name: whole
seed: 7
dataset: {name: files, pattern: "*.png", root: ~/data, validation: 900}
threat: {norm: linf, eps: 8/255}
matrix:
  defense:
    - {name: plain}
    - name: noisy
      scale: {log_uniform: [1e-3, 1]}
      per_layer: {each: {stem: {uniform: [0, 1/2]}, head: 0.1}}
network:
  choice:
    - {name: lenet}
    - {name: resnet, depth: {choice: [8, 14]}, width: {log_int: [8, 32]}}
training: {epochs: 12, lr: {grid: [0.01, 1e-1]}}
search:
  objectives: {robust_area: max, seconds: min}
  constraints: {clean_accuracy: ">= 9/10"}
  initial:
    - {network: {name: resnet, depth: 14}, training: {lr: 0.1}}
    - {defense.scale: 0.5}
scheduler: {name: asha, grace_epochs: 2, reduction_factor: 2}
evaluation:
  rung: {examples: 300, attacks: [{name: pgd, steps: 5}]}
  test: {finalists: 0}
resources: {trial: {cpus: 1, gpus: 1/4}, max_concurrent: 2}
"""


def load(source: Any = None, *overrides: str, **changes: Any) -> Spec:
    """A spec over the small tables: a text, or BASE with some keys changed (None removes one)."""
    given = source if source is not None else {**BASE, **changes}
    return load_spec(given, overrides, TABLES)


def refusal(source: Any = None, *overrides: str, **changes: Any) -> str:
    with pytest.raises(SpecError) as raised:
        load(source, *overrides, **changes)
    return str(raised.value)


def draw(generator: random.Random) -> Any:
    """A `suggest` that draws as a sampler would: an internal coordinate, then its value."""

    def suggest(path: str, hole: Hole) -> Any:
        kind = hole.distribution()
        if isinstance(kind, CategoricalDistribution):
            return hole.value(generator.choice(kind.choices))
        if isinstance(kind, IntDistribution):
            return hole.value(generator.randrange(kind.low, kind.high + 1, kind.step))
        assert isinstance(kind, FloatDistribution)
        if kind.log:
            return hole.value(math.exp(generator.uniform(math.log(kind.low), math.log(kind.high))))
        return hole.value(generator.uniform(kind.low, kind.high))

    return suggest
