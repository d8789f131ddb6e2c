"""Which parts of a table were packed into which: the commit of a compaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import UserError
from orchestrator.storage.files import Files

MANIFEST = "_manifest.json"  # readers of Parquet pass by what begins with an underscore


@dataclass(frozen=True)
class Manifest:
    """`packed` maps the name of each packed part to the names of the parts whose records it holds."""

    packed: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, files: Files, name: str) -> Manifest:
        try:
            content = files.read(name)
        except FileNotFoundError:
            return cls()
        try:
            packed = {str(part): [str(name) for name in names] for part, names in json.loads(content)["packed"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{files.root}/{name}: is damaged ({error!r}): no list of packed parts") from error
        return cls(packed)

    def to_bytes(self) -> bytes:
        return json.dumps({"version": 1, "packed": self.packed}, sort_keys=True).encode()

    def current(self, names: Sequence[str], prefix: str) -> list[str]:
        """Of the parts that are there those that count: no packed one that was not committed, none that was packed."""
        covered = {name for names in self.packed.values() for name in names}
        return sorted(
            name for name in names if name not in covered and (not name.startswith(prefix) or name in self.packed)
        )

    def finish(self, files: Files, table: str, suffix: str) -> None:
        """Delete what a compaction that was killed left to be deleted."""
        there = set(files.names(table)) if self.packed else set()
        for name in sorted(name for names in self.packed.values() for name in names):
            if name + suffix in there:
                files.delete(f"{table}/{name}{suffix}")
