"""The laws of a tree of files, held over each kind of storage: a disk, and S3 through a server on loopback."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import s3_server
from pyarrow.fs import FileSelector
from s3_server import Server

from orchestrator.errors import UserError
from orchestrator.storage.files import Files, open_files
from orchestrator.storage.object_files import ObjectFiles


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server.serving() as found:
        yield found


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "disk":
        made = open_files(tmp_path / "results" / "sweep")
    else:
        made = open_files(request.getfixturevalue("server").uri(f"{tmp_path.name}/sweep"))
    made.make_directory("")
    for directory in ("d", "e/f"):
        made.make_directory(directory)
    return made


def test_what_is_put_comes_back(files: Files) -> None:
    for content in (b"", b"\0\xffabc", b"x" * 100_000):
        files.replace("d/a.parquet", content)
        assert files.read("d/a.parquet") == content


def test_what_is_missing_is_said_to_be(files: Files) -> None:
    assert not files.exists("d/a")
    assert not files.exists("nowhere/a")
    assert files.names("nowhere") == []
    files.delete("d/a")
    files.delete("nowhere/a")
    for name in ("d/a", "nowhere/a"):
        with pytest.raises(FileNotFoundError):
            files.read(name)


def test_create_writes_once(files: Files) -> None:
    assert files.create("d/a", b"first")
    assert not files.create("d/a", b"second")
    assert files.read("d/a") == b"first"
    files.delete("d/a")
    assert files.create("d/a", b"third")
    assert files.read("d/a") == b"third"


def test_replace_and_delete_show_at_once(files: Files) -> None:
    files.replace("d/a", b"a longer content")
    files.replace("d/a", b"short")
    assert files.read("d/a") == b"short"
    assert files.exists("d/a")
    files.delete("d/a")
    assert not files.exists("d/a")
    assert files.names("d") == []


def test_names_are_plain_sorted_and_of_one_directory(files: Files) -> None:
    for name in ("d/b", "d/.hidden", "d/a", "d/sub/deep", "e/f/g", "spec.yaml"):
        files.make_directory(name.rpartition("/")[0]) if "/" in name else None
        files.replace(name, b"1")
    assert files.names("d") == [".hidden", "a", "b", "sub"]
    assert [name for name in files.names("") if not name.startswith(".")] == ["d", "e", "spec.yaml"]
    assert files.names("d/sub") == ["deep"]
    assert files.names("e") == ["f"]


def test_a_directory_is_no_file(files: Files) -> None:
    files.replace("e/f/g", b"1")
    assert not files.exists("e/f")
    assert not files.exists("e")


def test_a_directory_outlives_its_files_without_showing_any(files: Files) -> None:
    files.replace("e/f/g", b"1")
    files.delete("e/f/g")
    assert files.names("e/f") == []


def test_a_pickled_tree_is_the_same_tree(files: Files) -> None:
    again = pickle.loads(pickle.dumps(files))
    assert again == files
    files.replace("d/a", b"1")
    assert again.read("d/a") == b"1"
    assert len(pickle.dumps(files)) < 500


def test_pyarrow_reads_what_path_names(files: Files) -> None:
    files.replace("d/a", b"1")
    assert files.filesystem().open_input_stream(files.path("d/a")).read() == b"1"
    assert files.path("d/a") == files.path() + "/d/a"


def test_a_tree_says_where_it_is(files: Files) -> None:
    assert str(files) == files.root
    assert files.is_local == ("://" not in files.root)
    assert files.is_there()
    assert open_files(files.root) == files


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "d/../../x", "d//x", "./x", "d/"])
def test_a_name_that_could_leave_the_tree_is_refused(files: Files, name: str) -> None:
    for use in (files.read, files.exists, files.delete, files.names, files.path, files.make_directory):
        with pytest.raises(ValueError, match="name: must be relative"):
            use(name)
    for put in (files.replace, files.create):
        with pytest.raises(ValueError, match="name: must be relative"):
            put(name, b"")


def test_of_many_threads_that_create_one_name_one_gets_it_and_it_stays(files: Files) -> None:
    for turn in range(3):
        name, won, barrier = f"d/{turn}", list[bytes](), Barrier(8)
        seen: list[bytes] = []

        def work(content: bytes, name: str = name, won: list[bytes] = won, barrier: Barrier = barrier) -> None:
            barrier.wait()
            if files.create(name, content):
                won.append(content)
            seen.append(files.read(name))  # noqa: B023

        threads = [Thread(target=work, args=(b"%d" % place * 1000,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert seen == won * 8
        assert files.read(name) == won[0]
    assert len(files.names("d")) == 3


CREATE = """
import sys
from orchestrator.storage.files import open_files
files = open_files(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(files.create("d/a", sys.argv[2].encode()), files.read("d/a").decode(), flush=True)
"""


def test_of_many_processes_that_create_one_name_one_gets_it_and_it_stays(files: Files) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, files.root, f"content-{place}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for place in range(4)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    said = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    said = [child.communicate()[0].split() for child in children]
    assert sorted(won for won, _ in said) == ["False", "False", "False", "True"]
    (winner,) = [content for won, content in said if won == "True"]
    assert {content for _, content in said} == {winner}
    assert files.names("d") == ["a"]


def test_a_missing_bucket_is_named(server: Server) -> None:
    with pytest.raises(UserError, match=r"the bucket of s3://nowhere/results.* is not there"):
        open_files(server.uri(bucket="nowhere"))
    assert [found.path for found in server.client().get_file_info(FileSelector(""))] == [s3_server.BUCKET]


def test_a_store_out_of_reach_is_named_without_what_may_be_secret(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: ObjectFiles) -> bool:
        raise OSError("GET https://key:hunter2@host/ failed")

    monkeypatch.setattr(ObjectFiles, "is_there", fail)
    says = r"store: s3://bucket/results.* cannot be reached: GET https://\*\*\*@host"
    with pytest.raises(UserError, match=says) as told:
        open_files(server.uri())
    assert "hunter" not in str(told.value)


def test_what_is_replaced_while_it_is_downloaded_is_never_read_in_part(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader asks for the length first; a longer file that comes in between would be cut off there."""
    files = ObjectFiles(server.uri("torn"))
    files.replace("a", b"1" * 10)
    real = ObjectFiles.filesystem(files)
    longer = [b"2" * 20, b"3" * 30]

    class Racing:
        def open_input_stream(self, path: str) -> Any:
            stream = real.open_input_stream(path)
            if longer:
                files.replace("a", longer.pop(0))
            return stream

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    monkeypatch.setattr(ObjectFiles, "filesystem", lambda _: Racing())
    assert files.read("a") == b"3" * 30


def test_an_upload_that_ctrl_c_hits_leaves_a_whole_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes between the opening of an upload and its bytes, when closing it would leave an empty file."""
    files = ObjectFiles(server.uri("interrupted"))
    real, main = ObjectFiles.filesystem(files), threading.get_ident()

    class Interrupted:
        def open_output_stream(self, path: str) -> Any:
            stream = real.open_output_stream(path)
            signal.pthread_kill(main, signal.SIGINT)
            return stream

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ObjectFiles, "filesystem", lambda _: Interrupted())
            with pytest.raises(KeyboardInterrupt):
                files.replace("a", b"whole")
    finally:
        signal.signal(signal.SIGINT, before)
    for thread in threading.enumerate():
        if thread.name == "upload":
            thread.join()
    assert files.read("a") == b"whole"


def test_a_small_file_is_one_put_and_a_creation_costs_eight_requests(server: Server) -> None:
    files = ObjectFiles(server.uri("counted"))
    files.replace("a", b"1")
    server.requests.clear()
    files.replace("b", b"1")
    assert [request.split()[0] for request in server.requests] == ["PUT"]
    server.requests.clear()
    assert files.create("c", b"1")
    assert len(server.requests) == 8


def test_a_bucket_is_never_made(server: Server) -> None:
    files = ObjectFiles(server.uri("x", bucket="nowhere"))
    files.make_directory("")
    assert not files.is_there()
    with pytest.raises(OSError, match="NO_SUCH_BUCKET"):
        files.replace("a", b"1")
    assert not files.is_there()
