"""Claims about the one driver of a run, on each kind of storage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import s3_server

from orchestrator.errors import UserError
from orchestrator.storage import lease
from orchestrator.storage.driver_lock import NAME, compacting, driving
from orchestrator.storage.files import Files, open_files

HOLD = """
import sys, time
from orchestrator.storage import lease
from orchestrator.storage.driver_lock import driving
from orchestrator.storage.files import open_files
lease.RENEW = 0.1
with driving(open_files(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def signs_of_life_are_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.1)
    monkeypatch.setattr(lease, "WATCH", 0.1)


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.serving() as found:
        yield found


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "disk":
        return open_files(tmp_path)
    return open_files(request.getfixturevalue("server").uri(tmp_path.name))


def test_a_second_driver_is_refused_and_told_who_holds_it(files: Files) -> None:
    with driving(files), pytest.raises(UserError, match=f"process {os.getpid()} on"), driving(files):
        pass


def test_the_lock_is_free_again_after_the_block_and_after_an_error(files: Files) -> None:
    with pytest.raises(ZeroDivisionError), driving(files):
        _ = 1 / 0
    for _ in range(2):
        with driving(files) as held:
            held.check()


def test_a_killed_driver_on_this_machine_leaves_no_lock(files: Files) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, files.root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid}"), driving(files):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    said: list[str] = []
    with driving(files, said.append):
        pass
    assert said == []


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of an administrator, whom a disk refuses nothing."""
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("hold", [driving, compacting])
def test_a_run_that_one_may_not_write_is_named(tmp_path: Path, hold: Callable[[Files], Any]) -> None:
    (tmp_path / "run").mkdir(mode=0o500)
    with nobody(), pytest.raises(UserError, match=f"{tmp_path}/run: cannot be written here: .*Permission denied"):
        hold(open_files(tmp_path / "run")).__enter__()


def test_the_lock_is_hidden_from_readers_of_the_run(files: Files) -> None:
    with driving(files):
        assert NAME in files.names("")
    assert NAME.startswith(".")
    assert [name for name in files.names("") if not name.startswith(".")] == []
