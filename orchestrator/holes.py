"""Holes: the places of a spec that a search fills, each with its range and its Optuna distribution."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.wording import shown

Scalar = bool | int | float | str | None
Conditions = tuple[tuple[str, Scalar], ...]  # (path of a choice, the option that must have been chosen)
MOST_PROBES = 100
_STANDARD = NormalDist()
_MOST_ROUNDING = 1e-9


@dataclass(frozen=True)
class Hole(ABC):
    """One dimension of a search.

    `path` is that of the column `param.*`, without the prefix; `kind` the word in the spec; `column` the type of its
    values: "int", "float", "bool" or "string". It is asked for only where all `conditions` hold. A value (what a
    configuration, a column and a user see) and its `internal` coordinate (what a sampler moves in) differ for
    normals (the quantile) and for stepped ranges of floats (the number of the step).
    """

    path: str
    kind: str
    column: str
    conditions: Conditions

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """The range of the internal coordinate."""

    @abstractmethod
    def value(self, internal: Any) -> Scalar:
        """The value at an internal coordinate."""

    @abstractmethod
    def checked(self, value: Any) -> Scalar:
        """A value in the one form it has in configurations; raises ValueError where the hole does not allow it."""

    @abstractmethod
    def internal(self, value: Any) -> Any:
        """The internal coordinate of a value; raises ValueError where the hole does not allow it."""

    @abstractmethod
    def size(self) -> int | None:
        """How many values there are; None for a continuum."""

    @abstractmethod
    def values(self) -> list[Scalar]:
        """All of them, in order. Raises ValueError for a continuum."""

    @abstractmethod
    def probes(self) -> list[Scalar]:
        """Values that between them meet what can go wrong: all of a small range, else the ends and some between."""

    @abstractmethod
    def form(self) -> dict[str, Any]:
        """As it is written in a spec."""


@dataclass(frozen=True)
class Choice(Hole):
    """One of several labels: the values themselves, or names where the options are blocks."""

    labels: tuple[Scalar, ...]
    options: tuple[Any, ...]  # as written in a spec

    def distribution(self) -> CategoricalDistribution:
        return CategoricalDistribution(self.labels)

    def value(self, internal: Any) -> Scalar:
        return self.checked(internal)

    def internal(self, value: Any) -> Scalar:
        return self.checked(value)

    def checked(self, value: Any) -> Scalar:
        for label in self.labels:
            if label == value and isinstance(label, bool) == isinstance(value, bool):
                return label
        raise ValueError(f"must be one of {', '.join(map(shown, self.labels))}, got {shown(value)}")

    def size(self) -> int:
        return len(self.labels)

    def values(self) -> list[Scalar]:
        return list(self.labels)

    def probes(self) -> list[Scalar]:
        return self.values()

    def form(self) -> dict[str, Any]:
        return {self.kind: list(self.options)}


@dataclass(frozen=True)
class Numeric(Hole):
    """What ranges and normals have in common: bounds that belong to it, and perhaps a step from the lower one."""

    low: float
    high: float
    step: float | None

    def size(self) -> int | None:
        step = self._step()
        return None if step is None else round((self.high - self.low) / step) + 1

    def values(self) -> list[Scalar]:
        size = self.size()
        if size is None:
            raise ValueError(f"{self.path} has no step, so that its values cannot be listed")
        return [self._on_grid(place) for place in range(size)]

    def probes(self) -> list[Scalar]:
        size = self.size()
        if size is not None and size <= MOST_PROBES:
            return self.values()
        middle = [self._snapped(self.low + share * (self.high - self.low)) for share in (0.1, 0.25, 0.5, 0.75, 0.9)]
        return [self._typed(self.low), *middle, self._typed(self.high)]

    def checked(self, value: Any) -> int | float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:
            raise ValueError(f"must be in {shown([self.low, self.high])}, got {shown(value)}")
        if self._snapped(value) != value and not math.isclose(self._snapped(value), value, rel_tol=_MOST_ROUNDING):
            raise ValueError(f"must be {shown(self.low)} plus a multiple of {shown(self._step())}, got {shown(value)}")
        return self._snapped(value)

    def _step(self) -> float | None:
        return self.step or (1 if self.column == "int" else None)

    def _snapped(self, value: float) -> int | float:
        step = self._step()
        if step is None:
            return self._typed(min(max(value, self.low), self.high))
        places = round((self.high - self.low) / step)
        return self._on_grid(min(max(round((value - self.low) / step), 0), places))

    def _on_grid(self, place: int) -> int | float:
        """low + place * step in decimals: 0.3 and not 0.30000000000000004, so that it equals what a user writes."""
        if place + 1 == self.size():
            return self._typed(self.high)
        return self._typed(float(Decimal(repr(self.low)) + place * Decimal(repr(self._step()))))

    def _typed(self, value: float) -> int | float:
        return int(value) if self.column == "int" else float(value)


@dataclass(frozen=True)
class Range(Numeric):
    """uniform, log_uniform, int, log_int."""

    @property
    def is_log(self) -> bool:
        return self.kind.startswith("log_")

    def distribution(self) -> BaseDistribution:
        if self.is_log and self.step:  # each value stands for the stretch half a step to both sides
            return FloatDistribution(max(self.low - self.step / 2, self.low / 2), self.high + self.step / 2, log=True)
        if self.column == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.is_log, step=int(self.step or 1))
        size = self.size()
        return FloatDistribution(self.low, self.high, log=self.is_log) if size is None else IntDistribution(0, size - 1)

    def value(self, internal: Any) -> int | float:
        return self._on_grid(internal) if self._is_counted() else self._snapped(internal)

    def internal(self, value: Any) -> int | float:
        found = self.checked(value)
        return round((found - self.low) / (self._step() or 1)) if self._is_counted() else found

    def form(self) -> dict[str, Any]:
        written = {self.kind: [self._typed(self.low), self._typed(self.high)]}
        return written if self.step is None else {**written, "step": self._typed(self.step)}

    def _is_counted(self) -> bool:
        return self.column != "int" and self.step is not None and not self.is_log


@dataclass(frozen=True)
class Normal(Numeric):
    """normal and log_normal, cut to [low, high]; the internal coordinate is the quantile, in [0, 1].

    For log_normal, `mean` and `std` are those of the natural logarithm of the value, `low` and `high` bound the value.
    """

    mean: float
    std: float

    @property
    def is_log(self) -> bool:
        return self.kind == "log_normal"

    def distribution(self) -> FloatDistribution:
        return FloatDistribution(0.0, 1.0)

    def value(self, internal: Any) -> int | float:
        start, mass = self.mass()
        share = start + min(max(internal, 0.0), 1.0) * mass
        deviate = _STANDARD.inv_cdf(min(max(share, 1e-300), 1 - 2**-53))
        found = self.mean + self.std * deviate
        exact = math.exp(min(found, math.log(self.high))) if self.is_log else found
        return self._snapped(exact)

    def internal(self, value: Any) -> float:
        start, mass = self.mass()
        return min(max((_STANDARD.cdf(self._deviate(self.checked(value))) - start) / mass, 0.0), 1.0)

    def form(self) -> dict[str, Any]:
        written = {self.kind: [self.mean, self.std, self._typed(self.low), self._typed(self.high)]}
        return written if self.step is None else {**written, "step": self._typed(self.step)}

    def mass(self) -> tuple[float, float]:
        """The probability below `low`, and between `low` and `high`."""
        start = _STANDARD.cdf(self._deviate(self.low))
        return start, _STANDARD.cdf(self._deviate(self.high)) - start

    def _snapped(self, value: float) -> int | float:
        return super()._snapped(float(f"{value:.10g}"))  # 10 digits: a value given by a user comes back as written

    def _deviate(self, value: float) -> float:
        return ((math.log(value) if self.is_log else value) - self.mean) / self.std


def column_of(values: Sequence[Any]) -> str:
    """The type of a column that holds these values: int and float make float, any other mixture makes string."""
    kinds = {type(value) for value in values if value is not None}
    return united({_COLUMNS.get(kind, "string") for kind in kinds}) if kinds else "string"


def text_of(value: Any) -> str:
    """A value as the label of an option: 1.0 is "1", so that it equals what a user writes."""
    if isinstance(value, str):
        return value
    is_whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if is_whole else value, default=str)


def united(columns: set[str]) -> str:
    """The type of a column that must hold values of all these types."""
    if columns == {"int", "float"}:
        return "float"
    return next(iter(columns)) if len(columns) == 1 else "string"


_COLUMNS: dict[type, str] = {bool: "bool", int: "int", float: "float"}
