"""A writer killed at any line of its way (each one on a disk) leaves a whole file or none, and nobody waits for it."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3_server

from orchestrator.storage.claims import CLAIMS, STALE
from orchestrator.storage.files import Files, open_files

OLD, NEW, NEXT = b"old" * 100_000, b"new" * 150_000, b"next" * 50_000

WRITER = """
import os, signal, sys, threading
import pyarrow.fs  # before the forks, which are so many
from orchestrator.storage import claims, durable, local_files, object_files
from orchestrator.storage.files import open_files

root, verb, stride = *sys.argv[1:3], int(sys.argv[3])
watched = {module.__file__ for module in (claims, durable, local_files, object_files)}

def dying_at(line):
    seen = 0
    def trace(frame, event, argument):
        nonlocal seen
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

line, is_over = 1 - stride, False
while not is_over:
    line += stride
    if os.fork() == 0:
        files = open_files(root)
        trace = dying_at(line)
        threading.settrace(trace)
        sys.settrace(trace)
        getattr(files, verb)(f"d/{line}", b"new" * 150_000)
        sys.settrace(None)
        os._exit(0)
    is_over = os.waitstatus_to_exitcode(os.wait()[1]) == 0
    print(line, is_over, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.serving() as found:
        yield found


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "disk":
        made = open_files(tmp_path)
    else:
        made = open_files(request.getfixturevalue("server").uri(tmp_path.name))
    made.make_directory("d")
    return made


def killed(files: Files, verb: str, before: bytes | None = None) -> Iterator[tuple[str, bool]]:
    """The name of each file whose writer was killed, one line further each time; whether it was done instead."""
    if before is not None:
        for line in range(1, 60):
            files.replace(f"d/{line}", before)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, files.root, verb, "1" if files.is_local else "3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    for said in writer.stdout:
        line, is_over = said.split()
        yield f"d/{line}", is_over == "True"
        writer.stdin.write("\n")
        writer.stdin.flush()
    writer.stdin.close()
    writer.stdout.close()
    assert writer.wait() == 0


def test_a_writer_killed_while_it_replaces_leaves_the_old_file_or_the_new_one(files: Files) -> None:
    seen = []
    for name, is_over in killed(files, "replace", OLD):
        content = files.read(name)
        assert content in (OLD, NEW)
        seen.append(content)
        assert not is_over or content == NEW
    assert seen.count(OLD) >= 3
    assert seen[-1] == NEW


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: what a full disk does, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_halfway_through_a_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    files.replace("a", OLD)
    for put in (files.replace, files.create):
        for name in ("a", "b"):
            with at_most(len(NEW) // 2), pytest.raises(OSError, match="File too large"):
                put(name, NEW)
    assert files.read("a") == OLD
    assert files.names("") == ["a"]


def test_a_writer_killed_while_it_creates_leaves_a_whole_file_or_none_and_the_next_one_need_not_wait(
    files: Files,
) -> None:
    seen = []
    for name, is_over in killed(files, "create"):
        was_there = files.exists(name)
        assert not was_there or files.read(name) == NEW
        began = time.monotonic()
        assert files.create(name, NEXT) == (not was_there)
        assert time.monotonic() - began < STALE / 2
        assert files.read(name) == (NEW if was_there else NEXT)
        assert not is_over or was_there
        seen.append(was_there)
    assert seen.count(False) > 10
    assert seen.count(True) >= 2
    if not files.is_local:
        assert files.names(CLAIMS) == []
