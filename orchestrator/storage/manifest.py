"""Which parts of a table were packed into which: the commit of a compaction.

A table in which parts are packed has a manifest before it has its first packed part: packed parts without a manifest
have lost theirs, and one that the manifest does not name is of a compaction that was killed, or is under way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import UserError
from orchestrator.storage.files import Files

MANIFEST = "_manifest.json"  # readers of Parquet pass by what begins with an underscore


@dataclass(frozen=True)
class Manifest:
    """`packed` maps the name of each packed part to the names of the parts whose records it holds.

    `is_written` is false of a table that has none.
    """

    packed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_written: bool = True

    @classmethod
    def read(cls, files: Files, name: str) -> Manifest:
        try:
            content = files.read(name)
        except FileNotFoundError:
            return cls(is_written=False)
        try:
            packed = {str(part): [str(name) for name in names] for part, names in json.loads(content)["packed"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{files.root}/{name}: is damaged ({error!r}): no list of packed parts. `robustsweep doctor RUN "
                "--repair` makes it anew"
            ) from error
        return cls(packed)

    def to_bytes(self) -> bytes:
        return json.dumps({"version": 1, "packed": self.packed}, sort_keys=True).encode()

    def covered(self, names: Sequence[str]) -> set[str]:
        """Of the parts that are there those that were packed into others that are there."""
        there = set(names)
        return {name for part, packed in self.packed.items() if part in there for name in packed if name in there}

    def current(self, names: Sequence[str], prefix: str) -> list[str]:
        """Of the parts that are there those that count: no packed one that was not committed, none that was packed."""
        covered, unnamed = self.covered(names), set(self.unnamed(names, prefix))
        return sorted(name for name in names if name not in covered and name not in unnamed)

    def unnamed(self, names: Sequence[str], prefix: str) -> list[str]:
        """The packed parts that it does not know; packed parts have names that begin with `prefix`."""
        return [name for name in names if name.startswith(prefix) and name not in self.packed]
