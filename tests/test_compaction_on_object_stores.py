"""Compaction where directories cannot change places: killed, doubled or looked at, every row stays on record once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import s3_server
from remote_files import Dead, RemoteFiles, counts, dying_after, epoch, filled

from orchestrator.errors import UserError
from orchestrator.storage import compaction, lease
from orchestrator.storage.compaction import compact
from orchestrator.storage.driver_lock import COMPACTING, compacting
from orchestrator.storage.files import open_files
from orchestrator.storage.lease import Lease, LeaseLost
from orchestrator.storage.local_files import LocalFiles
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.parts import PACKED
from orchestrator.storage.schemas import TABLES
from orchestrator.storage.store import Store

SIX = [f"t{part}" for part in range(6)]
OPERATIONS = 10  # of a compaction of six parts: two manifests round the packed part, six deletions, the last manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return filled(RemoteFiles(str(tmp_path / "sweep")))


@pytest.fixture(autouse=True)
def signs_of_life_are_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.1)
    monkeypatch.setattr(lease, "WATCH", 0.1)


def killed(store: Store, operations: int) -> list[str]:
    with dying_after(operations) as done, pytest.raises(Dead):
        compact(store)
    return done


def test_a_compaction_has_so_many_operations(store: Store) -> None:
    with dying_after(OPERATIONS) as done:
        compact(store)
    assert len(done) == OPERATIONS
    assert done[0] == done[2] == done[9] == f"replace epochs/{MANIFEST}"
    assert done[1].startswith(f"replace epochs/{PACKED}")


@pytest.mark.parametrize("operations", range(OPERATIONS))
def test_whenever_it_is_killed_readers_and_the_next_compaction_have_every_row_once(
    store: Store, operations: int
) -> None:
    killed(store, operations)
    assert counts(store)[1:] == (SIX, SIX)
    store.append("epochs", "new", [epoch("new")])
    compact(store)  # no driver has come by meanwhile
    assert counts(store) == (["new", *SIX],) * 3
    assert len(store.names("epochs")) == 1


@pytest.mark.parametrize("operations", range(OPERATIONS))
def test_whenever_it_is_killed_the_next_driver_leaves_every_row_once_for_pandas_too(
    store: Store, operations: int
) -> None:
    killed(store, operations)
    store.prepare()
    assert counts(store) == (SIX,) * 3


def test_killed_again_and_again_it_loses_and_doubles_nothing(store: Store) -> None:
    expected = set(SIX)
    for turn in range(2 * OPERATIONS):
        key = f"u{turn:02d}"
        store.append("epochs", key, [epoch(key)])
        expected.add(key)
        with dying_after(turn % 7), suppress(Dead):
            compact(store)
        assert counts(store)[1:] == (sorted(expected),) * 2
    compact(store)
    assert counts(store) == (sorted(expected),) * 3


def test_two_at_once_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = compaction._commit, list[str]()

    def late(*arguments: Any) -> None:
        with pytest.raises(UserError, match="another compaction is at work here") as told:
            compact(store)
        refused.append(str(told.value))
        real(*arguments)

    monkeypatch.setattr(compaction, "_commit", late)
    compact(store)
    assert len(refused) == 1
    assert counts(store) == (SIX,) * 3


def test_one_that_was_stalled_until_another_took_over_commits_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compaction._commit

    def late(*arguments: Any) -> None:
        successor = Lease(store.files, COMPACTING, 1000)
        store.files.create(successor.name, successor.content())
        arguments[-1].renew()  # the sign of life that was due
        real(*arguments)

    monkeypatch.setattr(compaction, "_commit", late)
    with pytest.raises(LeaseLost, match="this compaction was stalled"):
        compact(store)
    assert counts(store)[1:] == (SIX, SIX)
    assert not any(store.manifest(table).packed for table in TABLES)


def test_a_driver_that_starts_beside_a_compaction_takes_nothing_from_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the packed part and the manifest it looks like one that was killed."""
    real = compaction._commit

    def late(*arguments: Any) -> None:
        Store(store.files).prepare()
        real(*arguments)

    monkeypatch.setattr(compaction, "_commit", late)
    compact(store)
    assert counts(store) == (SIX,) * 3


def test_a_reader_that_listed_before_a_commit_and_asks_after_it_sees_every_row_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit comes between its look at the names and its look at the manifest, before anything is deleted."""
    real, committed = LocalFiles.names, list[str]()

    def names(files: LocalFiles, directory: str) -> list[str]:
        found = real(files, directory)
        if directory == "epochs" and not committed:
            committed.append(directory)
            assert len(killed(store, 3)) == 3
        return found

    monkeypatch.setattr(LocalFiles, "names", names)
    assert store.keys("epochs") == set(SIX)
    assert committed
    assert any(name.startswith(PACKED) for name in real(store.files, "epochs"))


KILLED = """
import os, sys
from orchestrator.storage.compaction import compact
from orchestrator.storage.object_files import ObjectFiles
from orchestrator.storage.store import Store

left = int(sys.argv[2])

def dying(real):
    def call(files, name, *arguments):
        global left
        left -= name.startswith("epochs/")
        if left < 0:
            os._exit(9)
        return real(files, name, *arguments)
    return call

ObjectFiles.replace, ObjectFiles.delete = dying(ObjectFiles.replace), dying(ObjectFiles.delete)
compact(Store.at(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.serving() as found:
        yield found


@pytest.mark.parametrize(
    "operations",
    [pytest.param(at, marks=() if at in (2, 5) else pytest.mark.parity) for at in range(OPERATIONS)],
)
def test_a_process_killed_on_s3_is_succeeded_at_once_and_loses_and_doubles_nothing(
    server: s3_server.Server, tmp_path: Path, operations: int
) -> None:
    store = filled(open_files(server.uri(tmp_path.name)))
    command = [sys.executable, "-c", KILLED, store.root, str(operations)]
    assert subprocess.run(command, check=False).returncode == 9
    assert store.keys("epochs") == set(SIX)
    store.append("epochs", "new", [epoch("new")])
    compact(store)
    plain = pd.read_parquet(store.files.path("epochs"), filesystem=store.files.filesystem())
    assert sorted(plain["trial_id"]) == ["new", *SIX]
    assert (store.keys("epochs"), len(store.names("epochs"))) == ({"new", *SIX}, 1)


def test_who_packs_on_s3_is_alone(server: s3_server.Server) -> None:
    store = filled(open_files(server.uri("alone")))
    with compacting(store.files), pytest.raises(UserError, match="another compaction is at work here"):
        compact(store)
    compact(store)
    assert len(store.names("epochs")) == 1
