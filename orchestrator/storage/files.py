"""A tree of files below one root, on a disk or in an object store: the one seam between a run and its storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import UserError
from orchestrator.storage.store_place import is_uri, refuse_bad_uri

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


class Files(Protocol):
    """Each file is whole or absent, whatever dies while it is written. Names are relative to the root, with "/".

    Cheap to make, safe to pickle, without open handles: any number of threads and processes may work on one tree.
    """

    @property
    def root(self) -> str:
        """The absolute path, or the URI; never with secrets. `str(files)` is the same."""

    @property
    def is_local(self) -> bool: ...

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

    def replace(self, name: str, content: bytes) -> None:
        """Put `content` there, synced, in the place of what is there. A disk wants the directory made before."""

    def create(self, name: str, content: bytes) -> bool:
        """Put `content` there unless there is a file; of several writers one gets True, and its file stays."""

    def exists(self, name: str) -> bool:
        """Whether there is a file (not a directory) of this name."""

    def names(self, directory: str) -> list[str]:
        """The plain names of files and directories in it, hidden ones too, sorted; none where it is missing."""

    def delete(self, name: str) -> None:
        """Remove a file, if there is one."""

    def make_directory(self, name: str) -> None:
        """Make a directory and those above it; the root itself for "" only. Object stores need none."""

    def is_there(self) -> bool:
        """Whether the root, on an object store its bucket, is there at all."""

    def filesystem(self) -> FileSystem:
        """For the readers of pyarrow, which want it beside `path`."""

    def path(self, name: str = "") -> str:
        """What `filesystem()` calls the file, or the root."""


def open_files(place: str | Path) -> Files:
    """The tree at a path, which need not be there yet, or at an `s3://` or `gs://` URI, whose bucket must be.

    Raises UserError for the home of an unknown user, for another scheme, for a secret in the URI and for a bucket that
    is missing or out of reach.
    """
    if not is_uri(place):
        from orchestrator.storage.local_files import LocalFiles

        try:
            return LocalFiles(str(Path(place).expanduser().absolute()))
        except RuntimeError:
            raise UserError(f"store: there is no home directory for {str(place)!r}") from None
    from orchestrator.storage.object_files import ObjectFiles, refuse_missing_bucket

    refuse_bad_uri(str(place))
    files = ObjectFiles(str(place))
    refuse_missing_bucket(files)
    return files


def checked_name(name: str) -> str:
    """The name itself. Raises ValueError for one that could lead out of the tree."""
    if name and any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"name: must be relative, of plain parts between single '/', got {name!r}")
    return name
