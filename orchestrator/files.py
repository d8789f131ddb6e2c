"""Stop-gap until the seam lands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow.fs as pafs

from orchestrator import durable


class Files(Protocol):
    @property
    def root(self) -> str: ...

    @property
    def is_local(self) -> bool: ...

    def read(self, name: str) -> bytes: ...
    def replace(self, name: str, content: bytes) -> None: ...
    def create(self, name: str, content: bytes) -> bool: ...
    def exists(self, name: str) -> bool: ...
    def names(self, directory: str) -> list[str]: ...
    def delete(self, name: str) -> None: ...
    def make_directory(self, name: str) -> None: ...
    def filesystem(self) -> pafs.FileSystem: ...
    def path(self, name: str = "") -> str: ...


@dataclass(frozen=True)
class LocalFiles:
    root: str
    is_local: bool = True

    def read(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    def replace(self, name: str, content: bytes) -> None:
        durable.replace(Path(self.root, name), content)

    def create(self, name: str, content: bytes) -> bool:
        return durable.create(Path(self.root, name), content)

    def exists(self, name: str) -> bool:
        return Path(self.root, name).exists()

    def names(self, directory: str) -> list[str]:
        try:
            return sorted(p.name for p in Path(self.root, directory).iterdir())
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        Path(self.root, name).unlink(missing_ok=True)

    def make_directory(self, name: str) -> None:
        durable.make_directory(Path(self.root, name))

    def filesystem(self) -> pafs.FileSystem:
        return pafs.LocalFileSystem()

    def path(self, name: str = "") -> str:
        return str(Path(self.root, name))


def open_files(place: str | Path) -> Files:
    return LocalFiles(str(Path(place).expanduser().absolute()))
