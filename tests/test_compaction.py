"""Compaction: few parts instead of many, every row once, whoever reads, writes or dies meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pandas as pd
import pytest

from orchestrator.errors import UserError
from orchestrator.storage import compaction, quiet
from orchestrator.storage.compaction import compact
from orchestrator.storage.driver_lock import compacting
from orchestrator.storage.exchange import CannotExchange, exchange
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.parts import joined, split, widened
from orchestrator.storage.quiet import watching
from orchestrator.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.at(tmp_path / "sweep", {"training.lr": "float"})
    made.prepare()
    return made


def epoch(number: int, trial: str = "t") -> dict[str, Any]:
    return {"trial_id": trial, "epoch": number, "loss": 0.5}


def fill(store: Store, parts: int = 40, rows: int = 5) -> pd.DataFrame:
    for part in range(parts):
        store.append("epochs", f"t{part:04d}", [epoch(number, f"t{part:04d}") for number in range(rows)])
    return plain(store)


def plain(store: Store, table: str = "epochs") -> pd.DataFrame:
    """What plain pandas reads, in a canonical order."""
    frame = pd.read_parquet(f"{store.root}/{table}")
    return frame.sort_values(frame.columns[:2].to_list(), ignore_index=True)


def example(trial: str, evaluation: str = "final") -> dict[str, Any]:
    return {
        "trial_id": trial, "epoch": 1, "evaluation": evaluation, "split": "validation", "attack": "pgd",
        "attack_id": "0", "norm": "linf", "eps": 0.1, "example_id": 0, "label": 0, "clean_prediction": 0,
        "robust": True,
    }  # fmt: skip


def attack(trial: str) -> dict[str, Any]:
    return {
        "trial_id": trial, "epoch": 1, "evaluation": "final", "split": "validation", "attack": "pgd", "attack_id": "0",
        "position": 0, "norm": "linf", "eps": 0.1, "attack_json": "{}", "n": 1, "n_attacked": 1, "n_fooled": 0,
        "clean_accuracy": 1.0, "robust_accuracy": 1.0, "ci_low": 0.0, "ci_high": 1.0,
    }  # fmt: skip


def test_many_parts_become_one_and_every_row_stays(store: Store) -> None:
    before = fill(store)
    done = {entry.table: entry for entry in compact(store)}
    assert (done["epochs"].before, done["epochs"].after, done["epochs"].rows) == (40, 1, 200)
    assert done["asks"].before == done["asks"].after == 0
    pd.testing.assert_frame_equal(plain(store), before)
    pd.testing.assert_frame_equal(store.read("epochs").sort_values(["trial_id", "epoch"], ignore_index=True), before)
    assert store.keys("epochs") == {f"t{part:04d}" for part in range(40)}
    assert store.read_trial("epochs", "t0007")["epoch"].to_list() == [0, 1, 2, 3, 4]
    assert [path.name for path in Path(store.root).iterdir() if path.name.endswith(".packing")] == []


def test_packing_again_packs_what_came_since(store: Store) -> None:
    fill(store)
    compact(store)
    ledger = Ledger(store)
    assert not ledger.append("epochs", "t0003", [epoch(number, "t0003") for number in range(5)])
    assert ledger.append("epochs", "new", [epoch(1, "new")])
    ledger.flush()
    (done,) = [entry for entry in compact(store) if entry.table == "epochs"]
    assert (done.before, done.after) == (2, 1)
    assert len(plain(store)) == 201
    assert compact(store)[2].rows == 0  # one part alone is left as it is


def test_parts_of_different_schemas_are_packed_under_the_later_one(store: Store) -> None:
    row = {
        "sweep": "s", "cell": "all", "config_id": "c", "seed": 0, "stage": "search", "status": "completed",
        "defense": "d", "network": "n", "dataset": "x", "norm": "linf", "eps": 0.1, "params_json": "{}",
        "doubts": 0, "severe_doubts": 0,
    }  # fmt: skip
    store.append("trials", "a", [row | {"trial_id": "a", "param.training.lr": 0.5}])
    later = Store(store.files, {**store.param_columns, "defense.steps": "int"})
    later.prepare()
    later.append("trials", "b", [row | {"trial_id": "b", "param.defense.steps": 7}])
    compact(later)
    frame = pd.read_parquet(f"{store.root}/trials").set_index("trial_id")
    assert frame["param.defense.steps"].fillna(0).to_dict() == {"a": 0, "b": 7}
    assert frame["param.training.lr"].fillna(0).to_dict() == {"a": 0.5, "b": 0}


def test_where_nothing_says_which_columns_there_are_nothing_is_packed(store: Store) -> None:
    fill(store, parts=2)
    for spoil in (Path.unlink, lambda path: path.write_bytes(b"PAR1")):
        spoil(Path(store.root, "trials", "0-schema.parquet"))
        with pytest.raises(UserError, match=r"trials/0-schema\.parquet: is missing or damaged.*run the sweep once"):
            compact(Store.at(store.root))
        assert len(store.names("epochs")) == 2
        store.prepare()


def test_a_column_that_the_table_does_not_know_stays_in_its_part(store: Store) -> None:
    """A schema that was written anew may know less than the parts."""
    wide, narrow = store.to_table("epochs", [epoch(1)]), store.to_table("epochs", [epoch(2)]).drop_columns(["loss"])
    assert widened(wide, narrow.schema)["loss"].to_pylist() == [0.5]
    whole = joined([("a", widened(wide, narrow.schema)), ("b", narrow)])
    assert whole["loss"].to_pylist() == [0.5, None]
    assert [(key, part["epoch"].to_pylist()) for key, part in split(whole)] == [("a", [1]), ("b", [2])]


def test_examples_whose_evaluation_is_not_on_record_stay_where_they_are(store: Store) -> None:
    for trial in ("a", "b", "c"):
        store.replace("examples", f"{trial}.final", [example(trial)])
    for trial in ("a", "b"):
        store.append("attacks", f"{trial}.final", [attack(trial)])
    compact(store)
    assert "c.final" in store.names("examples")
    store.replace("examples", "c.final", [example("c")])  # the evaluation is done again
    store.replace("examples", "a.final", [example("a")])  # a late writer of what is packed
    assert plain(store, "examples")["trial_id"].to_list() == ["a", "b", "c"]


def test_a_row_that_is_replaced_while_it_is_packed_is_the_new_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, parts=3)
    whole = compaction.joined

    def late(records: Any) -> Any:
        store.replace("epochs", "t0001", [epoch(9, "t0001")])
        return whole(records)

    monkeypatch.setattr(compaction, "joined", late)
    compact(store)
    assert plain(store).groupby("trial_id")["epoch"].agg(list)["t0001"] == [9]
    assert len(plain(store)) == 11


@pytest.mark.parametrize("reads", ["pandas", "store"])
def test_a_writer_and_a_reader_beside_a_compaction_see_every_row_once(store: Store, reads: str) -> None:
    """A driver that appends and a reader that never rests, while the table is packed again and again."""
    stop, wrong, looks = Event(), list[str](), 0
    ledger = Ledger(store, interval=0)
    written = 0

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            least = written
            try:
                frame = pd.read_parquet(f"{store.root}/epochs") if reads == "pandas" else store.read("epochs")
            except Exception as error:
                wrong.append(repr(error))
                return
            looks += 1
            if frame["trial_id"].duplicated().any() or len(frame) < least:
                wrong.append(f"{len(frame)} rows of at least {least}, {frame['trial_id'].nunique()} distinct")

    reader = Thread(target=look)
    reader.start()
    for turn in range(6):
        for number in range(15):
            ledger.append("epochs", f"{turn}.{number}", [epoch(1, f"{turn}.{number}")])
            ledger.flush()
            written += 1
        compact(store)
    stop.set()
    reader.join()
    assert wrong == []
    assert len(plain(store)) == written == 90
    assert len(store.names("epochs")) == 1
    assert looks > 6


KILLED = """
import os, sys
from orchestrator.storage import compaction, durable, exchange, manifest
from orchestrator.storage.store import Store

step, left = sys.argv[2], int(sys.argv[3])

def dying(real):
    def call(*arguments, **settings):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*arguments, **settings)
    return call

module, name = {"replace": (durable, "replace"), "link": (os, "link"), "exchange": (compaction, "exchange"),
                "rmtree": (compaction.shutil, "rmtree"), "sync": (durable, "sync_directory"),
                "unlink": (compaction.Path, "unlink")}[step]
setattr(module, name, dying(getattr(module, name)))
if sys.argv[4] == "in place":
    def refuse(*_):
        raise exchange.CannotExchange(22, "not here")
    compaction.exchange = refuse
compaction.compact(Store.at(sys.argv[1]))
"""


STEPS = [
    ("replace", 0), ("replace", 1), ("link", 0), ("link", 2), ("exchange", 0), ("sync", 1), ("sync", 3), ("rmtree", 8),
    ("unlink", 3),
]  # fmt: skip
IN_PLACE = [("replace", 2), ("replace", 3), ("replace", 4)]  # the manifests: of nothing yet, the commit, the end
DEFAULT = [("replace", 1), ("replace", 3), ("unlink", 3)]


@pytest.mark.parametrize(
    ("where", "step", "after"),
    [("exchanged", *step) for step in STEPS]
    + [
        pytest.param("in place", *step, marks=() if step in DEFAULT else pytest.mark.parity)
        for step in (*STEPS, *IN_PLACE)
    ],
)
def test_a_compaction_killed_between_any_two_steps_leaves_every_row_once(
    store: Store, where: str, step: str, after: int
) -> None:
    before = fill(store, parts=12)
    command = [sys.executable, "-c", KILLED, store.root, step, str(after), where]
    subprocess.run(command, capture_output=True, check=False)
    pd.testing.assert_frame_equal(store.read("epochs").sort_values(["trial_id", "epoch"], ignore_index=True), before)
    if where == "exchanged":
        pd.testing.assert_frame_equal(plain(store), before)
    store.prepare()  # what the next driver does first
    pd.testing.assert_frame_equal(plain(store), before)
    compact(store)
    pd.testing.assert_frame_equal(plain(store), before)


def test_where_directories_cannot_be_exchanged_the_manifest_says_what_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fill(store)

    def refuse(*_: Any) -> None:
        raise CannotExchange(22, "not here")

    monkeypatch.setattr(compaction, "exchange", refuse)
    compact(store)
    assert len(store.names("epochs")) == 1
    pd.testing.assert_frame_equal(plain(store), before)


def test_a_second_compaction_is_refused(store: Store) -> None:
    with compacting(store.files), pytest.raises(UserError, match="another compaction is at work here"):
        compact(store)


def test_exchanged_directories_have_each_other_s_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    exchange(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name / "file").read_text() for name in ("a", "b")] == ["b", "a"]
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "absent")


def test_a_watch_knows_who_has_looked_and_not_yet_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b"]
    for name in names:
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(quiet, "SETTLED", 0.0)
    with watching(tmp_path) as watch:
        assert not watch.is_safe(names)  # who knows what happened before
        os.listdir(tmp_path)
        assert not watch.is_safe(names)
        (tmp_path / "a").read_text()
        assert not watch.is_safe(names)
        (tmp_path / "b").read_text()
        assert watch.is_safe(names)
        os.listdir(tmp_path)
        assert not watch.is_safe(names)
        monkeypatch.setattr(quiet, "QUIET", 0.0)
        assert watch.is_safe(names)
