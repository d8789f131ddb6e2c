"""A manifest that is lost or damaged: nobody goes on as if nothing had been packed, and it is made anew."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from remote_files import Dead, RemoteFiles, counts, dying_after, epoch, filled

from orchestrator.doctor import Finding, examine, set_aside
from orchestrator.errors import UserError
from orchestrator.storage.compaction import compact
from orchestrator.storage.local_files import LocalFiles
from orchestrator.storage.lost_manifest import remake
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.store import Store

SIX = [f"t{part}" for part in range(6)]


@pytest.fixture(params=[LocalFiles, RemoteFiles])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Compacted, by exchange and without."""
    made = filled(request.param(str(tmp_path / "sweep")))
    compact(made)
    return made


def manifest(store: Store) -> Path:
    return Path(store.root, "epochs", MANIFEST)


def found(store: Store) -> list[Finding]:
    return [finding for finding in examine(store) if finding.name.startswith("epochs/")]


def test_a_compacted_table_has_no_findings(store: Store) -> None:
    assert found(store) == []
    store.prepare()


def test_a_lost_one_is_refused_by_drivers_readers_and_compactions_and_made_anew(store: Store) -> None:
    manifest(store).unlink()
    for use in (store.prepare, lambda: store.keys("epochs"), lambda: store.read("epochs"), lambda: compact(store)):
        with pytest.raises(UserError, match=rf"epochs/{MANIFEST}: is missing, .*doctor RUN --repair"):
            use()
    (finding,) = found(store)
    assert (finding.name, finding.is_damaged) == (f"epochs/{MANIFEST}", True)
    set_aside(store, examine(store))
    assert found(store) == []
    store.prepare()
    assert counts(store) == (SIX,) * 3


def test_a_damaged_one_is_named_does_not_stop_the_doctor_and_is_made_anew(store: Store) -> None:
    manifest(store).write_bytes(manifest(store).read_bytes()[:7])
    with pytest.raises(UserError, match=rf"epochs/{MANIFEST}: is damaged .*doctor RUN --repair"):
        store.prepare()
    assert [(finding.name, finding.is_damaged) for finding in found(store)] == [(f"epochs/{MANIFEST}", True)]
    set_aside(store, examine(store))
    assert found(store) == []
    assert counts(store) == (SIX,) * 3


def test_records_that_were_told_again_count_once(store: Store) -> None:
    manifest(store).unlink()
    store.append("epochs", "t1", [epoch("t1")])
    store.append_group("epochs", "late", [("t3", [epoch("t3")]), ("new", [epoch("new")])])
    set_aside(store, examine(store))
    assert counts(store) == (["new", *SIX],) * 3
    compact(store)
    assert counts(store) == (["new", *SIX],) * 3


@pytest.mark.parametrize("operations", range(3, 9))
def test_lost_while_the_origins_of_a_packed_part_are_deleted_every_row_stays_once(
    tmp_path: Path, operations: int
) -> None:
    store = filled(RemoteFiles(str(tmp_path / "sweep")))
    with dying_after(operations), pytest.raises(Dead):
        compact(store)
    manifest(store).unlink()
    set_aside(store, examine(store))
    assert counts(store) == (SIX,) * 3


def test_lost_while_one_packed_part_was_packed_into_another_every_row_stays_once(tmp_path: Path) -> None:
    store = filled(RemoteFiles(str(tmp_path / "sweep")))
    compact(store)
    store.append("epochs", "new", [epoch("new")])
    with dying_after(2), pytest.raises(Dead):
        compact(store)
    assert len(list(manifest(store).parent.glob("packed-*"))) == 2
    manifest(store).unlink()
    set_aside(store, examine(store))
    assert counts(store) == (["new", *SIX],) * 3


@pytest.mark.parametrize("operations", range(3))
def test_a_repair_that_is_killed_can_be_begun_again(store: Store, operations: int) -> None:
    manifest(store).unlink()
    for key in ("t1", "t4"):
        store.append("epochs", key, [epoch(key)])
    with dying_after(operations), suppress(Dead):
        remake(store, "epochs")
    set_aside(store, examine(store))
    assert counts(store) == (SIX,) * 3
    assert found(store) == []


def test_a_packed_part_that_was_not_committed_is_no_damage(tmp_path: Path) -> None:
    store = filled(RemoteFiles(str(tmp_path / "sweep")))
    with dying_after(2), pytest.raises(Dead):
        compact(store)
    (finding,) = found(store)
    assert finding.name.startswith("epochs/packed-")
    assert not finding.is_damaged
    assert set_aside(store, [finding]) == []
    store.prepare()
    assert found(store) == []
