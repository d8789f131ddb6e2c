"""What a store that is full, unwritable or gone for a while means: waiting, then a word; never a wrong answer."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import s3_server
from still_time import Time

from orchestrator.storage.files import Files, open_files
from orchestrator.storage.patience import FIRST_PAUSE, LONGEST_PAUSE, PASSING, Patient, StoreLost

CALLS: dict[str, Callable[[Files], Any]] = {
    "read": lambda files: files.read("d/there"),
    "replace": lambda files: files.replace("d/new", b"12345"),
    "create": lambda files: files.create("d/new", b"12345"),
    "exists": lambda files: files.exists("d/there"),
    "names": lambda files: files.names("d"),
    "delete": lambda files: files.delete("d/there"),
    "make_directory": lambda files: files.make_directory("d/e"),
}


@dataclass
class Failing:
    """Files whose next operations raise: before the work is done, or after it."""

    files: Files
    errors: list[OSError] = field(default_factory=list)
    after: bool = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.files, name)
        if name not in CALLS:
            return found

        def call(*arguments: Any) -> Any:
            if self.errors and not self.after:
                raise self.errors.pop(0)
            answer = found(*arguments)
            if self.errors:
                raise self.errors.pop(0)
            return answer

        return call


@pytest.fixture
def disk(tmp_path: Path) -> Files:
    files = open_files(tmp_path / "store" / "sweep")
    files.make_directory("")
    files.make_directory("d")
    files.replace("d/there", b"there")
    return files


def patient(files: Files, time: Time, said: list[str] | None = None, seconds: float = 150.0) -> Patient:
    return Patient(files, seconds, None if said is None else said.append, time.clock, time.pause)


def errors(number: int | None, count: int) -> list[OSError]:
    seen = "AWS Error SLOW_DOWN (HTTP status 503)"
    return [OSError(seen) if number is None else OSError(number, os.strerror(number)) for _ in range(count)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EACCES, None])
def test_every_operation_is_tried_again_until_the_store_works(disk: Files, call: str, number: int | None) -> None:
    failing, time = Failing(disk, errors(number, 9)), Time()
    CALLS[call](patient(failing, time))
    assert failing.errors == []
    assert 0 < time.now < 60


def test_pauses_grow_and_no_single_one_is_long(disk: Files) -> None:
    time = Time()
    with pytest.raises(StoreLost):
        patient(Failing(disk, errors(errno.EIO, 99)), time).read("d/there")
    assert time.pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert max(time.pauses) == LONGEST_PAUSE
    assert time.now == pytest.approx(150.0)


@pytest.mark.parametrize("call", CALLS)
def test_a_store_that_stays_away_is_lost_with_where_how_long_and_what_was_seen(disk: Files, call: str) -> None:
    failing, time = Failing(disk, errors(errno.EIO, 99)), Time()
    with pytest.raises(StoreLost, match=r"store/sweep: could not .* in 150 s \(\d\d tries\): .*Input/output error"):
        CALLS[call](patient(failing, time))
    assert time.now >= 120


def test_a_full_disk_says_how_much_is_needed_and_free(disk: Files) -> None:
    with pytest.raises(StoreLost, match=r"No space left on device; 5 bytes are needed, [\d,]+ are free"):
        patient(Failing(disk, errors(errno.ENOSPC, 99)), Time()).replace("d/new", b"12345")
    assert disk.names("d") == ["there"]


def test_a_missing_file_in_a_root_that_is_there_is_not_waited_for(disk: Files) -> None:
    time = Time()
    files = patient(disk, time)
    with pytest.raises(FileNotFoundError):
        files.read("d/none")
    assert (files.exists("d/none"), files.names("none"), files.delete("d/none")) == (False, [], None)
    assert time.pauses == []


@pytest.mark.parametrize(
    "error", [ValueError("x"), TypeError("x"), OSError(errno.ENAMETOOLONG, "x"), OSError(errno.EISDIR, "x")]
)
def test_mistakes_of_the_program_are_raised_at_once(disk: Files, error: Exception) -> None:
    time = Time()
    with pytest.raises(type(error), match="x"):
        patient(Failing(disk, [error]), time).read("d/there")  # type: ignore[list-item]
    assert time.pauses == []


@pytest.mark.parametrize("call", CALLS)
def test_a_root_that_is_gone_for_a_minute_is_waited_for_by_every_operation(
    disk: Files, tmp_path: Path, call: str
) -> None:
    store, away = tmp_path / "store", tmp_path / "away"
    expected = CALLS[call](disk)  # what it answers when nothing happens
    disk.replace("d/there", b"there")
    disk.delete("d/new")
    store.rename(away)
    time = Time(at={60.0: lambda: away.rename(store)})
    assert CALLS[call](patient(disk, time)) == expected
    assert 60 <= time.now < 80


@pytest.mark.parametrize("call", CALLS)
def test_a_root_that_stays_away_is_lost_and_not_made_anew(disk: Files, tmp_path: Path, call: str) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(StoreLost, match="could not"):
        CALLS[call](patient(disk, Time()))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("call", ["read", "create", "exists", "names"])
def test_a_bucket_that_is_gone_is_waited_for_and_never_taken_for_an_empty_one(call: str) -> None:
    with s3_server.serving() as server:
        client, files = server.client(), open_files(server.uri("sweep"))
        files.replace("d/there", b"there")
        client.delete_dir(s3_server.BUCKET)

        def back() -> None:
            client.create_dir(s3_server.BUCKET)
            files.replace("d/there", b"there")

        time = Time(at={60.0: back})
        expected = {"read": b"there", "create": True, "exists": True, "names": ["there"]}[call]
        assert CALLS[call](patient(files, time)) == expected
        assert 60 <= time.now < 80
        client.delete_dir(s3_server.BUCKET)
        with pytest.raises(StoreLost, match=r"could not .* in 150 s .*(bucket is gone|NO_SUCH_BUCKET|not exist)"):
            CALLS[call](patient(files, time))


@pytest.mark.parity
@pytest.mark.parametrize("call", ["read", "replace", "create", "exists", "names", "delete"])
def test_a_server_that_is_down_for_a_while_is_waited_for(call: str) -> None:
    with s3_server.serving() as server:
        files = open_files(server.uri("sweep"))
        files.replace("d/there", b"there")
        port, before = server.port, CALLS[call](files)
        files.replace("d/there", b"there")
        files.delete("d/new")
        server.stop()
        time = Time(at={0.1: lambda: server.start(port)})
        assert CALLS[call](patient(files, time)) == before


def test_what_is_missing_as_the_root_comes_back_is_asked_for_again(disk: Files) -> None:
    failing = Failing(disk, [FileNotFoundError(errno.ENOENT, "gone")])
    assert patient(failing, Time()).read("d/there") == b"there"


def test_a_create_that_failed_after_its_work_was_done_counts_as_written(disk: Files) -> None:
    time = Time()
    assert patient(Failing(disk, errors(errno.EIO, 2), after=True), time).create("d/new", b"mine")
    assert disk.read("d/new") == b"mine"
    assert not patient(Failing(disk, errors(errno.EIO, 2), after=True), time).create("d/new", b"other")
    assert disk.read("d/new") == b"mine"


def test_waits_are_told_once_and_so_is_the_return(disk: Files) -> None:
    said: list[str] = []
    patient(Failing(disk, errors(errno.EIO, 9)), Time(), said).read("d/there")
    assert len(said) == 2
    assert said[0].startswith(f"{disk.root}: cannot read d/there: [Errno 5] Input/output error; trying for 150 s more")
    assert said[1].endswith("the store is back after 33 s")  # 0.1 doubled seven times, then twice ten
    said.clear()
    patient(Failing(disk, errors(errno.EIO, 1)), Time(), said).read("d/there")
    assert said == []


def test_secrets_in_what_was_seen_are_not_told(disk: Files) -> None:
    said: list[str] = []
    seen = [OSError("GET https://u:hunter2@host/b?X-Amz-Signature=hunter3: token=hunter4") for _ in range(99)]
    with pytest.raises(StoreLost) as lost:
        patient(Failing(disk, seen), Time(), said).read("d/there")
    assert "hunter" not in str(lost.value) + "".join(said)


def test_a_pickled_one_goes_on_with_the_same_store_and_more_patience(disk: Files) -> None:
    """A worker's: mostly the driver gives up before it."""
    files = pickle.loads(pickle.dumps(patient(disk, Time(), [], seconds=7.0)))
    assert (files.root, files.seconds, files.read("d/there")) == (disk.root, 600.0, b"there")


def test_a_lost_store_is_not_waited_for_twice(disk: Files) -> None:
    time = Time()
    inner = patient(Failing(disk, errors(errno.EIO, 99)), time)
    with pytest.raises(StoreLost) as lost:
        patient(inner, time).read("d/there")
    assert time.now == pytest.approx(150.0)
    assert isinstance(pickle.loads(pickle.dumps(lost.value)), StoreLost)


def test_every_number_that_passes_is_an_error_of_the_system(disk: Files) -> None:
    for number in PASSING:
        time = Time()
        patient(Failing(disk, errors(number, 1)), time).read("d/there")
        assert time.pauses == [FIRST_PAUSE]
