"""A disk that is treated as an object store, without locks and exchanges, and a death at any of its operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from orchestrator.storage.files import Files
from orchestrator.storage.local_files import LocalFiles
from orchestrator.storage.store import Store


@dataclass(frozen=True)
class RemoteFiles(LocalFiles):
    @property
    def is_local(self) -> bool:
        return False


class Dead(BaseException):
    """The process that was at work is no more."""


def epoch(trial: str, number: int = 1) -> dict[str, Any]:
    return {"trial_id": trial, "epoch": number, "loss": 0.5}


def filled(files: Files, parts: int = 6) -> Store:
    """A store whose `epochs` have parts t0, t1, ... of one row each."""
    store = Store(files)
    store.prepare()
    for part in range(parts):
        store.append("epochs", f"t{part}", [epoch(f"t{part}")])
    return store


def counts(store: Store) -> tuple[list[str], list[str], list[str]]:
    """The trials in `epochs` as plain pandas, the store, and its keys have them, sorted."""
    frames = (pd.read_parquet(Path(store.root, "epochs")), store.read("epochs"))
    plain, ours = (sorted(frame["trial_id"]) for frame in frames)
    return plain, ours, sorted(store.keys("epochs"))


@contextmanager
def dying_after(operations: int, directory: str = "epochs") -> Iterator[list[str]]:
    """Whoever changes files in a directory dies instead of the operation after so many; -> those that were done."""
    done: list[str] = []

    def dying(name: str) -> Any:
        real = getattr(LocalFiles, name)

        def call(files: LocalFiles, *arguments: Any) -> Any:
            if arguments[0].startswith(f"{directory}/"):
                if len(done) >= operations:
                    raise Dead
                done.append(f"{name} {arguments[0]}")
            return real(files, *arguments)

        return mock.patch.object(LocalFiles, name, call)

    with dying("replace"), dying("delete"):
        yield done
