"""Files in an object store, S3 or Google's, through pyarrow: one PUT is whole or absent."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyarrow.fs import FileSelector, FileSystem, FileType
from pyarrow.lib import ArrowInvalid

from orchestrator.errors import UserError
from orchestrator.provenance import masked
from orchestrator.storage.claims import create_once
from orchestrator.storage.files import checked_name
from orchestrator.storage.store_place import is_uri

TORN_READS = 100  # a file that is replaced under each of so many readings is not one of ours


@dataclass(frozen=True)
class ObjectFiles:
    """The tree below a URI. The connection is made at the first use in each process."""

    root: str

    def __post_init__(self) -> None:
        assert is_uri(self.root)
        found = urlsplit(self.root)
        object.__setattr__(self, "root", found._replace(path=found.path.rstrip("/")).geturl())

    @property
    def is_local(self) -> bool:
        return False

    def __str__(self) -> str:
        return self.root

    def read(self, name: str) -> bytes:
        """A download is of the length that was asked for before: what was replaced in between comes back cut short.

        So the state is asked for again afterwards, and the download redone where it has changed.
        """
        for _ in range(TORN_READS):
            with self.filesystem().open_input_stream(self.path(name)) as stream:
                before = stream.metadata()
                content: bytes = stream.read()
            with self.filesystem().open_input_stream(self.path(name)) as stream:
                if stream.metadata() == before:
                    return content
        raise OSError(f"{self.root}: {name} was replaced during each of {TORN_READS} readings")

    def replace(self, name: str, content: bytes) -> None:
        path, filesystem = self.path(name), self.filesystem()

        def put() -> None:
            stream = filesystem.open_output_stream(path)
            stream.write(content)
            stream.close()

        _uninterrupted(put)

    def create(self, name: str, content: bytes) -> bool:
        return create_once(self, name, content)

    def exists(self, name: str) -> bool:
        try:
            self.filesystem().open_input_stream(self.path(name)).close()
        except FileNotFoundError:
            return False
        return True

    def names(self, directory: str) -> list[str]:
        return sorted(self.changed(directory))

    def changed(self, directory: str) -> dict[str, float]:
        """When each file in a directory was written, in seconds by the store's clock; directories are of time 0.

        A listing of Google's store reads everything below and leaves directories out, so they are told from what lies
        in them.
        """
        path = self.path(directory)
        selector = FileSelector(path, allow_not_found=True, recursive=self.root.startswith("gs://"))
        found: dict[str, float] = {}
        for entry in self.filesystem().get_file_info(selector):
            name, below, _ = entry.path.removeprefix(path).strip("/").partition("/")
            found[name] = 0.0 if below else (entry.mtime_ns or 0) / 1e9
        return found

    def delete(self, name: str) -> None:
        try:
            self.filesystem().delete_file(self.path(name))
        except FileNotFoundError:
            return

    def make_directory(self, name: str) -> None:
        checked_name(name)

    def is_there(self) -> bool:
        filesystem, base = _connected(self.root)
        found = filesystem.get_file_info(base.partition("/")[0])
        return bool(found.type != FileType.NotFound)

    def filesystem(self) -> FileSystem:
        return _connected(self.root)[0]

    def path(self, name: str = "") -> str:
        base = _connected(self.root)[1]
        return f"{base}/{checked_name(name)}" if name else base


def refuse_missing_bucket(files: ObjectFiles) -> None:
    """Raises UserError unless the bucket answers."""
    try:
        is_there = files.is_there()
    except (OSError, ArrowInvalid) as error:
        raise UserError(f"store: {files.root} cannot be reached: {masked(str(error))}") from None
    if not is_there:
        raise UserError(f"store: the bucket of {files.root} is not there: make it first")


@functools.lru_cache(maxsize=64)
def _connected(uri: str) -> tuple[FileSystem, str]:
    """The filesystem and what it calls the root. May ask the network for the region of a bucket."""
    is_s3 = uri.startswith("s3://")  # one PUT for small files, where there would be three requests
    extra = ("&" if urlsplit(uri).query else "?") + "allow_delayed_open=true" if is_s3 else ""
    filesystem, base = FileSystem.from_uri(uri + extra)
    return filesystem, str(base).rstrip("/")


def _uninterrupted(work: Callable[[], None]) -> None:
    """Do the work where no signal handler runs: an upload interrupted before its bytes would leave an empty file.

    An interrupt while it is waited for lets it go on to its end. (A `join` that is interrupted takes the thread for
    ended, and then nobody waits for it when the process ends.)
    """
    raised: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="upload").start()
    over.wait()
    if raised:
        raise raised[0]
