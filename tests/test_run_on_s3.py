"""A whole sweep kept in an object store: killed and begun again, it ends as the undisturbed one on a disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import s3_server
from pyarrow.fs import FileSelector

from orchestrator.analysis import Run, load
from orchestrator.storage.files import open_files
from orchestrator.storage.store_place import below

pytestmark = pytest.mark.parity

SPEC = """
# Does it end the same?
name: tiny
dataset: {name: digits, validation: 200}
threat: {norm: linf, eps: 0.1}
network: {name: mlp}
defense: {name: standard}
training: {epochs: 4, batch_size: 64, lr: {log_uniform: [0.02, 0.3]}}
search: {trials: 6, objectives: {robust_area: max}}
scheduler: {name: asha, grace_epochs: 2, reduction_factor: 2}
evaluation:
  rung: {examples: 50, attacks: [{name: pgd, steps: 3}]}
  final: {examples: 50, attacks: [{name: pgd, steps: 3}]}
  test: {finalists: 1, seeds: 1, examples: 50, attacks: [{name: pgd, steps: 3}]}
resources: {max_concurrent: 1}
"""
KILLS = 4
OUTAGE = 30.0  # seconds


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.serving() as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("undisturbed")
    spec = place / "tiny.yaml"
    spec.write_text(SPEC)
    finished(spec, str(place), place / "log")
    return load(place / "tiny")


def begin(spec: Path, store: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "orchestrator", "run", str(spec), "--store", store]
    with log.open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)


def finished(spec: Path, store: str, log: Path) -> str:
    """What a run says that is let to its end."""
    code = begin(spec, store, log).wait(timeout=300)
    assert code == 0, log.read_text()
    return log.read_text()


def rows(run: Run) -> pd.DataFrame:
    columns = ["trial_id", "stage", "status", "seed", "epochs", "clean_accuracy", "robust_accuracy", "robust_area"]
    return run.trials()[columns].sort_values("trial_id", ignore_index=True)


def test_a_sweep_on_s3_that_is_killed_again_and_again_ends_as_the_undisturbed_one_on_a_disk(
    tmp_path: Path, server: s3_server.Server, undisturbed: Run
) -> None:
    spec, store, log, draw = tmp_path / "tiny.yaml", server.uri(), tmp_path / "log", random.Random(0)
    spec.write_text(SPEC)
    killed = 0
    while killed < KILLS:
        driver = begin(spec, store, log)
        while driver.poll() is None and "at a time" not in log.read_text():
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, 6.0))
        assert driver.poll() is None, f"it ended before it was killed: {log.read_text()}"
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        killed += 1
    finished(spec, store, log)
    run = load(below(store, "tiny"))
    pd.testing.assert_frame_equal(rows(run), rows(undisturbed))
    assert len(run.trials()) == run.trials()["trial_id"].nunique() == 7
    assert not run.epochs().duplicated(["trial_id", "epoch"]).any()
    assert not run.examples().duplicated(["trial_id", "evaluation", "eps", "attack", "example_id"]).any()
    assert run.events().query("kind == 'conflict'").empty
    assert run.model(run.trials()["trial_id"][0]) is not None
    assert "nothing to do" in finished(spec, store, log)


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_store_that_is_gone_for_a_while_delays_a_sweep_and_changes_nothing(
    tmp_path: Path, server: s3_server.Server, undisturbed: Run, kind: str
) -> None:
    spec, log, disk, away = tmp_path / "tiny.yaml", tmp_path / "log", tmp_path / "store", tmp_path / "away"
    spec.write_text(SPEC)
    store = server.uri("outage") if kind == "s3" else str(disk)
    driver = begin(spec, store, log)
    while driver.poll() is None and "search 2/6" not in log.read_text():
        time.sleep(0.05)
    port = server.port
    server.stop() if kind == "s3" else disk.rename(away)
    time.sleep(OUTAGE)
    assert driver.poll() is None, log.read_text()
    before = log.read_text()
    server.start(port) if kind == "s3" else away.rename(disk)
    assert driver.wait(timeout=300) == 0, log.read_text()
    assert "search 5/6" not in before
    assert "the store is back after" in log.read_text()
    run = load(below(store, "tiny") if kind == "s3" else disk / "tiny")
    pd.testing.assert_frame_equal(rows(run), rows(undisturbed))


def test_no_secret_of_the_environment_reaches_the_store_or_the_screen(
    tmp_path: Path, server: s3_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    spec, store = tmp_path / "tiny.yaml", server.uri("secret")
    spec.write_text(SPEC.replace("trials: 6", "trials: 1"))
    assert "hunter" not in finished(spec, store, tmp_path / "log")
    files = open_files(below(store, "tiny"))
    client, found = server.client(), []
    for entry in client.get_file_info(FileSelector(files.path(), recursive=True)):
        if entry.is_file:
            found.append(entry.base_name)
            assert b"hunter" not in client.open_input_stream(entry.path).read()
    assert {"spec.yaml", "provenance.json"} <= set(found)
