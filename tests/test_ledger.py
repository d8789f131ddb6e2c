"""The ledger: each record once, several under one sync, and in an order in which a driver may die anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.errors import UserError
from orchestrator.lifecycle import ENDED, event
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.at(tmp_path / "sweep")
    made.prepare()
    return made


def epoch(number: int, trial: str = "t", loss: float = 0.5) -> dict[str, Any]:
    return {"trial_id": trial, "epoch": number, "loss": loss}


def read(store: Store, table: str) -> pd.DataFrame:
    """As plain pandas does."""
    return pd.read_parquet(f"{store.root}/{table}")


def test_records_that_wait_share_a_part(store: Store) -> None:
    ledger = Ledger(store, interval=1e9)
    for number in range(5):
        assert ledger.append("epochs", f"t.{number}", [epoch(number)])
    assert read(store, "epochs").empty
    ledger.flush()
    assert read(store, "epochs")["epoch"].to_list() == [0, 1, 2, 3, 4]
    assert len(store.names("epochs")) == 1
    assert store.keys("epochs") == {f"t.{number}" for number in range(5)}


def test_what_waits_is_written_when_it_is_due(store: Store) -> None:
    now = [100.0]
    ledger = Ledger(store, interval=0.25, clock=lambda: now[0])
    ledger.append("epochs", "a", [epoch(1)])
    ledger.flush_if_due()
    assert len(read(store, "epochs")) == 1  # the first waits for nobody
    ledger.append("epochs", "b", [epoch(2)])
    ledger.flush_if_due()
    assert len(read(store, "epochs")) == 1
    now[0] += 0.25
    ledger.flush_if_due()
    assert len(read(store, "epochs")) == 2


def test_many_rows_wait_for_nothing(store: Store) -> None:
    ledger = Ledger(store, interval=1e9)
    ledger.append("epochs", "a", [epoch(number) for number in range(2001)])
    assert len(read(store, "epochs")) == 2001


def test_a_record_is_written_once_by_this_driver_and_the_next(store: Store) -> None:
    first = Ledger(store, interval=1e9)
    assert first.append("epochs", "t.1", [epoch(1)])
    assert not first.append("epochs", "t.1", [epoch(1)])
    first.flush()
    second = Ledger(store, interval=1e9)
    assert second.has("epochs", "t.1")
    assert not second.append("epochs", "t.1", [epoch(1)])
    second.flush()
    assert len(read(store, "epochs")) == 1
    assert read(store, "events").empty


def test_a_record_that_differs_from_the_one_on_record_is_a_conflict_and_the_first_stays(store: Store) -> None:
    first = Ledger(store, interval=1e9)
    first.append("epochs", "t.1", [epoch(1)])
    first.append("epochs", "t.2", [epoch(2)])
    first.flush()
    Ledger(store).append("epochs", "t.2", [epoch(2, loss=0.25)])
    assert store.read("epochs")["loss"].to_list() == [0.5, 0.5]
    (conflict,) = store.read("events").to_dict("records")
    assert (conflict["kind"], conflict["trial_id"]) == ("conflict", "t")


def test_a_trial_s_end_comes_after_what_it_stands_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that dies between two parts must leave no end without its epochs, no row without its end."""
    ledger, written = Ledger(store, interval=1e9), list[tuple[str, list[str]]]()
    monkeypatch.setattr(
        Store, "append_group", lambda self, table, name, records: written.append((table, [key for key, _ in records]))
    )
    ledger.append("trials", "t", [{}])
    ledger.append("events", "t.ended", [event("t", ENDED, {})])
    ledger.append("epochs", "t.1", [epoch(1)])
    ledger.append("attacks", "t.1", [{}])
    ledger.append("events", "t.doubts", [event("t", "doubt:degenerate")])
    ledger.append("asks", "t", [{}])
    ledger.flush()
    assert written == [
        ("asks", ["t"]), ("events", ["t.doubts"]), ("attacks", ["t.1"]), ("epochs", ["t.1"]),
        ("events", ["t.ended"]), ("trials", ["t"]),
    ]  # fmt: skip


def test_a_flush_that_was_cut_off_after_its_part_was_written_doubles_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come during the sync of the directory; what the ledger is told in between goes along."""
    ledger, write = Ledger(store, interval=1e9), Store.append_group

    def cut_off(self: Store, *call: Any) -> None:
        write(self, *call)
        raise KeyboardInterrupt

    ledger.append("epochs", "t.1", [epoch(1)])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "append_group", cut_off)
        with pytest.raises(KeyboardInterrupt):
            ledger.flush()
    ledger.append("epochs", "t.2", [epoch(2)])
    ledger.flush()
    ledger.append("epochs", "t.3", [epoch(3)])
    ledger.flush()
    assert sorted(read(store, "epochs")["epoch"]) == [1, 2, 3]


def test_nothing_is_written_by_a_driver_whose_run_another_has_taken_over(store: Store) -> None:
    def refuse() -> None:
        raise UserError("another driver is at work here")

    ledger = Ledger(store, interval=1e9, may_write=refuse)
    ledger.append("epochs", "t.1", [epoch(1)])
    with pytest.raises(UserError, match="another driver"):
        ledger.flush()
    assert read(store, "epochs").empty


def test_events_are_told_again_without_a_look_at_what_is_on_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Ledger(store, interval=1e9)
    first.append("events", "t.training", [event("t", "training started")])
    first.flush()
    second = Ledger(store)
    monkeypatch.setattr(Store, "record", lambda *_: pytest.fail("the whole table was looked through"))
    assert not second.append("events", "t.training", [event("t", "training started")])


def test_asks_can_be_written_before_the_rest(store: Store) -> None:
    ledger = Ledger(store, interval=1e9)
    ledger.append("epochs", "t.1", [epoch(1)])
    row = {"trial_id": "t", "cell": "all", "config_json": "{}", "params_json": "{}"}
    ledger.append("asks", "t", [row | {"asked_at": pd.Timestamp("2025-01-01", tz="UTC").to_pydatetime()}])
    ledger.flush("asks")
    assert (len(read(store, "asks")), len(read(store, "epochs"))) == (1, 0)


def test_a_record_in_a_group_is_replaced_in_its_place(store: Store) -> None:
    ledger = Ledger(store, interval=1e9)
    for name in ("a", "b", "c"):
        ledger.append("epochs", name, [epoch(1, name), epoch(2, name)])
    ledger.flush()
    store.replace("epochs", "b", [epoch(1, "b", loss=0.1)])
    found = read(store, "epochs").groupby("trial_id")["loss"].agg(list).to_dict()
    assert found == {"a": [0.5, 0.5], "b": [0.1], "c": [0.5, 0.5]}
    assert store.keys("epochs") == {"a", "b", "c"}
    assert store.read_trial("epochs", "b")["loss"].to_list() == [0.1]
