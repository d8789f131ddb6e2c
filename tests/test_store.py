"""The store: whole parts, written once, of declared types, readable at any moment whoever dies."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import UserError
from orchestrator.storage import durable
from orchestrator.storage.schemas import TABLES, VERSION_KEY, schema_of
from orchestrator.storage.store import Store

PARAMS = {"training.lr": "float", "network": "string", "network.resnet.depth": "int", "training.nesterov": "bool"}
DESIGN = {  # the columns of DESIGN.md section 6, in its order
    "asks": "trial_id number cell config_json params_json distributions_json sampler_attrs_json asked_at",
    "trials": "sweep cell trial_id config_id seed stage status error defense network dataset norm eps "
    "param.training.lr param.network param.network.resnet.depth param.training.nesterov "
    "params_json parameters epochs checkpoint_epoch "
    "evaluation n clean_accuracy robust_accuracy robust_area robust_ci_low robust_ci_high rung_robust_accuracy doubts "
    "severe_doubts train_seconds eval_seconds gpu_seconds peak_memory_bytes started_at finished_at host device "
    "code_version spec_hash checkpoint revision",
    "epochs": "trial_id epoch loss learning_rate clean_accuracy robust_accuracy seconds",
    "attacks": "trial_id epoch evaluation split attack attack_id position norm eps attack_json n n_attacked n_fooled "
    "clean_accuracy robust_accuracy ci_low ci_high forward_passes backward_passes seconds",
    "examples": "trial_id epoch evaluation split attack attack_id norm eps example_id label clean_prediction "
    "adversarial_prediction robust robust_probability distance margin",
    "events": "at trial_id kind severity evidence host",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.at(tmp_path / "x=1" / "sweep", PARAMS)
    made.prepare()
    return made


def epoch(number: int, trial: str = "t", **others: Any) -> dict[str, Any]:
    return {"trial_id": trial, "epoch": number, "loss": 0.5} | others


def trial(**others: Any) -> dict[str, Any]:
    known = {"sweep": "s", "cell": "all", "trial_id": "t", "config_id": "c", "seed": 0, "stage": "search"}
    known |= {"status": "completed", "defense": "pgd_at", "network": "mlp", "dataset": "digits", "norm": "linf"}
    return known | {"eps": 0.1, "params_json": "{}", "doubts": 0, "severe_doubts": 0} | others


@pytest.mark.parametrize("table", TABLES)
def test_a_prepared_table_reads_as_empty_with_the_columns_of_the_design(store: Store, table: str) -> None:
    frame = pd.read_parquet(Path(store.root, table))
    assert list(frame.columns) == DESIGN[table].split()
    assert frame.empty
    assert store.read(table).equals(frame)
    assert store.keys(table) == set()


def test_declared_types_hold_in_an_empty_table(store: Store) -> None:
    types = pd.read_parquet(Path(store.root, "trials")).dtypes.map(str)
    assert types[["seed", "eps", "param.training.lr", "param.network.resnet.depth", "started_at"]].to_list() == [
        "int64", "float64", "float64", "int64", "datetime64[us, UTC]",
    ]  # fmt: skip


def test_a_column_that_is_null_in_the_first_parts_keeps_its_type(store: Store) -> None:
    store.append("epochs", "a", [epoch(1, clean_accuracy=None)])
    store.append("epochs", "b", [epoch(2, clean_accuracy=float("nan"))])
    store.append("epochs", "c", [epoch(3, clean_accuracy=1)])
    frame = pd.read_parquet(Path(store.root, "epochs"))
    assert frame["clean_accuracy"].dtype == np.float64
    assert frame.sort_values("epoch")["clean_accuracy"].fillna(-1).to_list() == [-1, -1, 1]
    assert pq.ParquetFile(Path(store.root, store.part("epochs", "b"))).read()["clean_accuracy"].null_count == 1


def test_rows_come_back_as_they_were_written(store: Store) -> None:
    at = datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    store.append("events", "e", [{"at": at, "kind": "retry", "trial_id": "t"}, {"at": at, "kind": "retry"}])
    frame = store.read("events")
    assert frame["at"].to_list() == [pd.Timestamp("2025-03-01T10:00:00Z")] * 2
    assert frame["trial_id"].isna().to_list() == [False, True]
    store.replace("trials", "t", [trial(seed=2**62, **{"param.network": 8, "param.training.nesterov": True})])
    row = store.read("trials").iloc[0]
    assert (row["seed"], row["param.network"], row["param.training.nesterov"]) == (2**62, "8", True)


def test_an_equal_second_write_is_a_no_op_whatever_it_cost(store: Store) -> None:
    assert store.append("epochs", "t.1", [epoch(1, seconds=1.0, loss=float("nan"))])
    content = Path(store.root, store.part("epochs", "t.1")).read_bytes()
    assert not store.append("epochs", "t.1", [epoch(1, seconds=2.0, loss=float("nan"))])
    assert Path(store.root, store.part("epochs", "t.1")).read_bytes() == content
    assert store.read("events").empty


def test_a_different_second_write_is_a_conflict_on_record_once_and_the_first_stays(store: Store) -> None:
    store.append("epochs", "t.1", [epoch(1), epoch(2)])
    for _ in range(2):
        assert not store.append("epochs", "t.1", [epoch(1), epoch(2, loss=0.25)])
    assert store.read("epochs")["loss"].to_list() == [0.5, 0.5]
    (event,) = store.read("events").to_dict("records")
    assert (event["kind"], event["trial_id"]) == ("conflict", "t")
    told = {"table": "epochs", "key": "t.1", "columns": ["loss"], "row": 1}
    assert json.loads(event["evidence"]) == told | {"recorded": {"loss": 0.5}, "refused": {"loss": 0.25}}
    assert not store.append("epochs", "t.1", [epoch(1)])
    assert len(store.read("events")) == 2


def test_of_simultaneous_writers_exactly_one_part_stays(store: Store) -> None:
    start, wrote = Barrier(8), []

    def write(loss: float) -> None:
        start.wait()
        wrote.append((store.append("epochs", "t", [epoch(1, loss=loss)]), loss))

    threads = [Thread(target=write, args=(float(loss),)) for loss in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [loss for is_first, loss in wrote if is_first]
    assert store.read("epochs")["loss"].to_list() == [winner]
    assert len(store.read("events")) == 7


def test_without_hard_links_parts_are_still_written_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(durable.errno.EPERM, "no hard links here")

    monkeypatch.setattr(durable.os, "link", refuse)
    assert store.append("epochs", "t", [epoch(1)])
    assert not durable.create(Path(store.root, store.part("epochs", "t")), b"other")
    assert len(store.read("epochs")) == 1
    assert [path for path in Path(store.root, "epochs").iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(("method", "naming"), [("append", "link"), ("replace", "replace")])
def test_a_part_gets_its_name_when_it_is_synced_and_counts_when_the_name_is(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str, naming: str
) -> None:
    steps: list[tuple[str, bool]] = []  # each with whether the part was there by then
    for name in ("fsync", "link", "replace"):
        real = getattr(durable.os, name)

        def spied(*arguments: Any, name: str = name, real: Any = real) -> None:
            steps.append((name, "t" in store.keys("epochs")))
            real(*arguments)

        monkeypatch.setattr(durable.os, name, spied)
    getattr(store, method)("epochs", "t", [epoch(1)])
    assert steps == [("fsync", False), (naming, False), ("fsync", True)]


def test_a_disk_that_is_full_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(durable.errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        store.append("epochs", "t", [epoch(1)])
    assert [path.name for path in Path(store.root, "epochs").iterdir()] == ["0-schema.parquet"]


def test_a_replaced_part_is_the_new_one(store: Store) -> None:
    store.replace("trials", "t", [trial()])
    store.replace("trials", "t", [trial(status="failed", n=7)])
    assert store.read("trials", ["status", "n"]).to_dict("records") == [{"status": "failed", "n": 7}]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"trial_id": "t", "epoch": 1, "losss": 0.5}, "epochs: unknown column losss; did you mean 'loss'?"),
        ({"trial_id": "t"}, "epochs.epoch: is required, missing in 1 of 1 rows"),
        ({"trial_id": "t", "epoch": None}, "epochs.epoch: is required"),
        ({"trial_id": "t", "epoch": 1.5}, "epochs.epoch: must be int64: got 1.5"),
        ({"trial_id": "t", "epoch": np.float32(1.5)}, "epochs.epoch: must be int64"),
        ({"trial_id": "t", "epoch": True}, "epochs.epoch: must be int64"),
        ({"trial_id": "t", "epoch": 2**63}, "epochs.epoch: must be int64"),
        ({"trial_id": 7, "epoch": 1}, "epochs.trial_id: must be string"),
        ({"trial_id": "t", "epoch": 1, "loss": "0.5"}, "epochs.loss: must be double"),
    ],
)
def test_a_wrong_row_is_refused_with_table_and_column(store: Store, row: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match="epochs") as caught:
        store.append("epochs", "t", [row])
    assert str(caught.value).startswith(says)
    assert store.keys("epochs") == set()


def test_a_time_needs_its_zone(store: Store) -> None:
    with pytest.raises(ValueError, match=r"events\.at: .*needs a time with its zone"):
        store.append("events", "e", [{"at": datetime(2025, 3, 1), "kind": "retry"}])


@pytest.mark.parametrize("key", ["", ".a", "_a", "-a", "a/b", "../a", "a b", "a:b", "é", "a\n", "x" * 201, "0-schema"])
def test_a_key_that_is_no_plain_name_is_refused(store: Store, key: str) -> None:
    for use in (store.part, store.read_trial):
        with pytest.raises(ValueError, match="key: must be"):
            use("epochs", key)
    for write in (store.append, store.replace):
        with pytest.raises(ValueError, match="key: must be"):
            write("epochs", key, [])
    with pytest.raises(ValueError, match="key: must be"):
        store.write_text(key, "")


def test_every_allowed_key_is_read_back(store: Store) -> None:
    names = {"A", "a.b", "=", "0", "cell=x,y".replace(",", "."), "x" * 200, "0-schem"}
    for name in names:
        store.append("epochs", name, [epoch(1, trial=name)])
    assert store.keys("epochs") == names
    assert set(pd.read_parquet(Path(store.root, "epochs"))["trial_id"]) == names


def test_an_unknown_table_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="table: must be one of asks, trials"):
        store.read("metrics")


def test_read_trial_gives_the_rows_of_that_trial_alone(store: Store) -> None:
    for key in ("ab", "ab.rung.1", "abc", "abc.rung.1", "b.ab"):
        store.append("epochs", key, [epoch(1, trial=key.split(".")[0], loss=float(len(key)))])
    assert store.read_trial("epochs", "ab")["loss"].to_list() == [2.0, 9.0]
    assert store.read_trial("epochs", "a", ["loss"]).columns.to_list() == ["loss"]
    assert store.read_trial("epochs", "a").empty


def test_the_footers_of_many_groups_are_asked_for_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store takes its time for each. None is answered here before all are asked for."""
    for number in range(8):
        store.append_group("epochs", str(number), [(f"t{number}.{part}", [epoch(part)]) for part in range(2)])
    expected = {f"t{number}.{part}": f"group-{number}" for number in range(8) for part in range(2)}
    real, together = Store.keys_in, Barrier(8, timeout=20)

    def asked(reader: Store, table: str, name: str) -> list[str]:
        together.wait()
        return real(reader, table, name)

    monkeypatch.setattr(Store, "keys_in", asked)
    assert store.index("epochs") == expected


def test_a_store_is_picklable_and_a_reader_needs_no_param_columns(store: Store) -> None:
    store.replace("trials", "t", [trial(**{"param.training.lr": 0.1})])
    assert pickle.loads(pickle.dumps(store)) == store
    assert Store.at(store.root).read("trials")["param.training.lr"].to_list() == [0.1]


def test_what_a_killed_writer_left_behind_disturbs_no_reader(store: Store) -> None:
    store.append("epochs", "t", [epoch(1)])
    (Path(store.root, "epochs") / ".t.parquet.123-abc.tmp").write_bytes(b"PAR1 half")
    assert len(pd.read_parquet(Path(store.root, "epochs"))) == len(store.read("epochs")) == 1
    assert store.keys("epochs") == {"t"}


def test_prepare_again_changes_nothing_and_other_columns_are_refused(store: Store) -> None:
    store.replace("trials", "t", [trial()])
    before = {path: path.stat().st_mtime_ns for path in Path(store.root).rglob("*.parquet")}
    store.prepare()
    assert {path: path.stat().st_mtime_ns for path in Path(store.root).rglob("*.parquet")} == before
    with pytest.raises(UserError, match=r"param\.training\.lr \(double\)"):
        Store.at(store.root, PARAMS | {"training.lr": "int"}).prepare()


def test_a_column_that_came_later_is_null_in_the_older_parts(store: Store) -> None:
    store.replace("trials", "t", [trial()])
    later = Store.at(store.root, PARAMS | {"defense.steps": "int"})
    later.prepare()
    later.replace("trials", "u", [trial(trial_id="u", **{"param.defense.steps": 7})])
    for frame in (pd.read_parquet(Path(store.root, "trials")), store.read("trials")):
        assert frame.set_index("trial_id")["param.defense.steps"].fillna(0).to_dict() == {"t": 0, "u": 7}


def test_a_store_of_a_later_version_is_refused(store: Store) -> None:
    schema = schema_of("asks").with_metadata({VERSION_KEY: b"99"})
    pq.write_table(schema.empty_table(), Path(store.root, "asks") / "0-schema.parquet")
    with pytest.raises(UserError, match="schema version 99 of a later robustsweep"):
        store.prepare()


def test_reading_where_no_store_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        Store.at(tmp_path).read("asks")


def test_parts_are_zstd_and_carry_the_schema_version(store: Store) -> None:
    store.append("epochs", "t", [epoch(1)])
    file = pq.ParquetFile(Path(store.root, store.part("epochs", "t")))
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.schema_arrow.metadata[VERSION_KEY] == b"1"
    assert file.schema_arrow.equals(schema_of("epochs"))
    assert isinstance(file.schema_arrow, pa.Schema)


def test_files_of_the_sweep_are_replaced_whole(store: Store) -> None:
    store.write_text("spec.yaml", "name: a\n")
    store.write_text("spec.yaml", "name: ä\n")
    store.write_json("provenance.json", {"b": 1, "a": None})
    assert (Path(store.root) / "spec.yaml").read_text(encoding="utf-8") == "name: ä\n"
    assert json.loads((Path(store.root) / "provenance.json").read_text()) == {"a": None, "b": 1}


def test_the_store_needs_neither_torch_nor_ray() -> None:
    heavy = "('torch', 'ray', 'optuna', 'scipy')"
    script = f"import sys, orchestrator.storage.store; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WRITER = """
import sys
from pathlib import Path
from orchestrator.storage.store import Store

store, turn = Store.at(sys.argv[1]), sys.argv[2]
for part in range(10_000):
    if part % 20 == 0:
        sys.stdin.readline()  # not far ahead of the reader, who would have ever more to read
    rows = [{"trial_id": turn, "epoch": epoch, "loss": part} for epoch in range(20)]
    store.append("epochs", f"{part:05d}", rows)
    print(part, flush=True)
"""


def test_killed_writers_lose_nothing_repeat_nothing_and_disturb_no_reader(tmp_path: Path) -> None:
    """Six writers of the same parts, killed one after the other; a reader looks on all the while."""
    store = Store.at(tmp_path / "sweep")
    store.prepare()
    looks, told = 0, -1
    for turn in range(6):
        command = [sys.executable, "-c", WRITER, str(store.root), str(turn)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            for _ in range(3 + 2 * turn):
                print(file=writer.stdin, flush=True)
                told = max(told, int(writer.stdout.readline()))
                frame = pd.read_parquet(Path(store.root, "epochs"))
                sizes = frame.groupby("loss").size()
                assert set(sizes) <= {20}
                assert len(sizes) > told
                looks += 1
            writer.kill()  # somewhere in its work
            rest = writer.stdout.read().split("\n")[:-1]  # a line that was cut off tells nothing
            told = max(told, *map(int, rest), -1)
    frame = pd.read_parquet(Path(store.root, "epochs"))
    assert set(frame.groupby("loss").size()) == {20}
    assert set(frame["loss"]) >= set(range(told + 1))
    assert frame.groupby("loss")["trial_id"].nunique().max() == 1  # a part is of one writer: the first
    assert set(store.read("events")["kind"]) == {"conflict"}  # the others differed, in trial_id
    assert looks == 48


def test_records_of_now_are_in_utc(store: Store) -> None:
    before = datetime.now(UTC)
    store.append("epochs", "t", [epoch(1)])
    store.append("epochs", "t", [epoch(2)])
    assert before <= store.read("events")["at"].iloc[0] <= datetime.now(UTC)
