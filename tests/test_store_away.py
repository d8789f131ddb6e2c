"""A store whose disk is away while its tables are read: that is waited for, and no damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from still_time import Time

from orchestrator.storage.files import open_files
from orchestrator.storage.patience import Patient, StoreLost
from orchestrator.storage.store import Store

READS: dict[str, Callable[[Store], Any]] = {
    "read": lambda store: store.read("epochs")["loss"].to_list(),
    "read_trial": lambda store: store.read_trial("epochs", "b")["loss"].to_list(),
    "keys": lambda store: store.keys("epochs"),
    "record": lambda store: store.record("epochs", "b").to_pylist(),
    "rows": lambda store: store.rows("epochs", "a"),
    "append": lambda store: store.append("epochs", "new", [epoch("new", 4, 0.5)]),
}


def epoch(trial_id: str, number: int, loss: float) -> dict[str, Any]:
    return {"trial_id": trial_id, "epoch": number, "loss": loss}


def filled(files: Any) -> Store:
    store = Store(files)
    store.prepare()
    store.append("epochs", "a", [epoch("a", 1, 0.1)])
    store.append_group("epochs", "g", [("b", [epoch("b", 2, 0.2)]), ("c", [epoch("c", 3, 0.3)])])
    return store


@pytest.mark.parametrize("read", READS)
def test_a_disk_that_is_away_is_waited_for_by_every_reader(tmp_path: Path, read: str) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    expected = READS[read](filled(open_files(tmp_path / "other")))
    time = Time()
    store = filled(Patient(open_files(disk / "run"), 150.0, None, time.clock, time.pause))
    disk.rename(away)
    time.at[60.0] = lambda: away.rename(disk)
    assert READS[read](store) == expected
    assert 60 <= time.now < 80


@pytest.mark.parametrize("read", READS)
def test_a_disk_that_goes_away_under_a_reader_is_waited_for(
    tmp_path: Path, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes when pyarrow is asked to read the parts past the files' own operations."""
    disk, away = tmp_path / "disk", tmp_path / "away"
    expected, time = READS[read](filled(open_files(tmp_path / "other"))), Time()
    store = filled(Patient(open_files(disk / "run"), 150.0, None, time.clock, time.pause))
    real = Patient.filesystem

    def leaving(files: Patient) -> Any:
        if not time.at and time.now == 0.0:
            disk.rename(away)
            time.at[60.0] = lambda: away.rename(disk)
        return real(files)

    monkeypatch.setattr(Patient, "filesystem", leaving)
    assert READS[read](store) == expected
    assert time.now == 0.0 or 60 <= time.now < 80
    assert time.now or read in ("append",)


@pytest.mark.parametrize("read", [READS["read"], lambda store: store.records("epochs", "a")])
def test_a_disk_that_stays_away_is_lost_and_not_damaged(tmp_path: Path, read: Callable[[Store], Any]) -> None:
    time = Time()
    store = filled(Patient(open_files(tmp_path / "disk" / "run"), 150.0, None, time.clock, time.pause))
    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(StoreLost, match="in 150 s"):
        read(store)
