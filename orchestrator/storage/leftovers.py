"""Deletes what a compaction that was killed left in a table: plain readers see those rows twice."""

from __future__ import annotations

from orchestrator.storage.driver_lock import compacting
from orchestrator.storage.files import Files
from orchestrator.storage.hold import Held, HeldByAnother
from orchestrator.storage.manifest import MANIFEST, Manifest
from orchestrator.storage.parts import PACKED, SUFFIX, names_in


def finish(files: Files, table: str, held: Held) -> None:
    """Delete the parts that were packed into others, and packed parts that were not committed. For the one who packs.

    Nothing is deleted that a manifest does not speak of: where there is none, nothing.
    """
    manifest, names = Manifest.read(files, f"{table}/{MANIFEST}"), names_in(files, table)
    if not manifest.is_written:
        return
    for name in (*sorted(manifest.covered(names)), *manifest.unnamed(names, PACKED)):
        held.check()
        files.delete(f"{table}/{name}{SUFFIX}")


def finish_unless_at_work(files: Files, table: str) -> None:
    """The same for those who only come by: who packs at this very moment is left to go on."""
    manifest, names = Manifest.read(files, f"{table}/{MANIFEST}"), names_in(files, table)
    if not manifest.is_written or not (manifest.covered(names) or manifest.unnamed(names, PACKED)):
        return
    try:
        with compacting(files) as held:
            finish(files, table, held)
    except HeldByAnother:
        return
