"""Files on a disk that this machine sees: its own, or one it shares with others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.storage import durable
from orchestrator.storage.files import checked_name

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class LocalFiles:
    """The tree below an absolute path."""

    root: str

    @property
    def is_local(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.root

    def read(self, name: str) -> bytes:
        return self._at(name).read_bytes()

    def replace(self, name: str, content: bytes) -> None:
        durable.replace(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        return durable.create(self._at(name), content)

    def exists(self, name: str) -> bool:
        return _is(stat.S_ISREG, self._at(name))

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(self._at(directory)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, name: str) -> None:
        self._at(name).unlink(missing_ok=True)

    def make_directory(self, name: str) -> None:
        """Never makes a root that is gone as a by-product: a disk that is not mounted would be shadowed by it."""
        if name and not self.is_there():
            raise FileNotFoundError(f"{self.root}: is not there")
        durable.make_directory(self._at(name))

    def is_there(self) -> bool:
        return _is(stat.S_ISDIR, Path(self.root))

    def filesystem(self) -> FileSystem:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def path(self, name: str = "") -> str:
        return str(self._at(name))

    def _at(self, name: str) -> Path:
        return Path(self.root, checked_name(name))


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    """Unlike Path.is_file, which may take a disk that cannot be read for one without the file."""
    try:
        return kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
