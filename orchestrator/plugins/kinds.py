"""What a class must offer to be an attack, a defense, a network, an input or a dataset, and what it lacks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DATASET_KEYS = ("root", "validation", "train", "test")  # keys of a spec that every dataset has


@dataclass(frozen=True)
class Kind:
    """One table of what a spec may name.

    `table` is its field in `orchestrator.tables.Tables`; `calls` are the methods and what each is called with, by
    position; `given` are the class attributes that a class without them gets; `taken` may be no field.
    """

    word: str
    table: str
    calls: Mapping[str, tuple[str, ...]]
    given: Mapping[str, Any] = field(default_factory=dict)
    taken: tuple[str, ...] = ()

    def lacks(self, cls: type) -> list[str]:
        """What keeps a class from being of this kind, in words; nothing where it is."""
        found = []
        if not is_frozen(cls):
            found.append("it must be a frozen dataclass: write @dataclass(frozen=True) above it")
        else:
            names = {each.name for each in dataclasses.fields(cls)} & {"name", *self.taken}
            found += [f"no field may be called {name}, which is a key of every {self.word}" for name in sorted(names)]
        return found + [text for method, words in self.calls.items() for text in _mistaken(cls, method, words)]


KINDS: tuple[Kind, ...] = (
    Kind("attack", "attacks", {"__call__": ("model", "x", "y", "threat", "draws")}),
    Kind(
        "defense",
        "defenses",
        {"fit": ("network", "data", "training", "draws", "state"), "deployed": ("state",), "surface": ()},
        {"uses_threat": True, "neutral": None, "ready_epoch": 0},
    ),
    Kind("network", "networks", {"__call__": ("channels", "size", "classes")}),
    Kind("input", "inputs", {"__call__": ("channels", "size"), "surface": ()}),
    Kind("dataset", "datasets", {"__call__": ("root", "split")}, {"default_root": None}, DATASET_KEYS),
)
"""A table that is not here takes plugins too: of a class for it nothing is asked but that it is a frozen dataclass."""


def recognised(cls: type) -> Kind | None:
    """The kind a class is meant to be, by its methods and what they are called with, though it may lack something."""
    named = [kind for kind in KINDS if "__call__" in kind.calls and words(cls, "__call__") == kind.calls["__call__"]]
    methodical = [kind for kind in KINDS if "__call__" not in kind.calls and _has(cls, next(iter(kind.calls)))]
    counted = [kind for kind in KINDS if "__call__" in kind.calls and is_frozen(cls) and _fits(cls, kind)]
    return next(iter((*named, *methodical, *counted)), None)


def is_frozen(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def words(cls: type, method: str) -> tuple[str, ...] | None:
    """The names of a method's arguments by position, without self and leading underscores; None without the method."""
    if not _has(cls, method):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = inspect.signature(_method(cls, method)).parameters.values()
    return tuple(each.name.lstrip("_") for each in given if each.kind in positional)[1:]


def _mistaken(cls: type, method: str, wanted: tuple[str, ...]) -> list[str]:
    shown = f"{method}({', '.join(wanted)})"
    if not _has(cls, method):
        return [f"it has no {shown}"]
    signature = inspect.signature(_method(cls, method))
    try:
        signature.bind(None, *wanted)
    except TypeError:
        return [f"it is called as {shown}, and takes {signature}"]
    return []


def _fits(cls: type, kind: Kind) -> bool:
    """Whether the number of arguments says it; two are as many as those of anything."""
    found, wanted = words(cls, "__call__"), kind.calls["__call__"]
    return found is not None and len(found) == len(wanted) > 2


def _has(cls: type, method: str) -> bool:
    return any(method in vars(each) for each in cls.__mro__)  # a class itself can be called: getattr finds that


def _method(cls: type, method: str) -> Callable[..., Any]:
    found: Callable[..., Any] = next(vars(each)[method] for each in cls.__mro__ if method in vars(each))
    return found
