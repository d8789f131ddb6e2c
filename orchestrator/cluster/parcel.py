"""What travels to a cluster: a working directory and our own code, in one zip whose size is known before it is sent."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.plugins.luggage import Module
from orchestrator.provenance import PACKAGES, ROOT

LIMIT = 100 * 2**20  # bytes; Ray keeps what is sent in the memory of the head node
LEFT_HERE = {"results", "venv", "node_modules", "__pycache__", "build", "dist"}  # and whatever begins with a dot
WHENEVER = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip: equal files make an equal zip, which is not sent twice


@dataclass(frozen=True)
class Parcel:
    """Files by their names in the zip, sorted, and texts that are made on the way."""

    files: tuple[tuple[str, Path], ...]
    texts: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return sum(path.stat().st_size for _, path in self.files) + sum(len(text) for _, text in self.texts)

    def write(self, target: Path) -> None:
        """The zip; the same bytes for the same content."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in self.files:
                archive.writestr(_entry(name), path.read_bytes())
            for name, text in self.texts:
                archive.writestr(_entry(name), text)


def pack(directory: Path, spec: Path, leave: Sequence[Path] = (), modules: Sequence[Module] = ()) -> Parcel:
    """What a job needs of `directory`: its files but for stores, environments, hidden files, what git ignores, what
    lies under one of `leave` (datasets, the store), and links to directories; our three packages; and the `modules` of
    plugins, wherever they lie here, where a job finds them.

    Raises UserError where the spec does not lie in it, a folder of it has the name of one of our packages, another file
    lies where a plugin's must, or the whole is larger than `LIMIT`.
    """
    directory, spec = directory.resolve(), spec.resolve()
    if not spec.is_relative_to(directory):
        raise UserError(
            f"{spec} does not lie in the working directory {directory}, which travels to the cluster: run submit from "
            "a folder that holds it, or name one with --working-dir"
        )
    stays = [path.expanduser().resolve() for path in leave]
    found = {path.relative_to(directory).as_posix(): path for path in _travellers(directory, stays)}
    found[spec.relative_to(directory).as_posix()] = spec
    for package in PACKAGES:
        if (directory / package).exists() and directory != ROOT:
            raise UserError(
                f"{directory / package}: has the name of a package of robustsweep, which travels beside it: rename it, "
                "or name another folder with --working-dir"
            )
        found |= {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / package).rglob("*.py"))}
    for module in modules:
        if found.setdefault(module.path, Path(module.origin)).resolve() != Path(module.origin).resolve():
            raise UserError(
                f"{directory / module.path}: lies where the plugin {module.origin} would go: rename one, or name "
                "another folder with --working-dir"
            )
    found = {name: path for name, path in found.items() if path.is_file()}  # a package needs no __init__
    parcel = Parcel(tuple(sorted(found.items())), _metadata())
    if parcel.size > LIMIT:
        raise UserError(_too_large(parcel, directory))
    return parcel


def _travellers(directory: Path, stays: Sequence[Path]) -> Iterator[Path]:
    ignored = _ignored(directory)
    for place, folders, names in os.walk(directory):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not _is_left(here / name, stays, ignored))
        yield from (
            here / name
            for name in sorted(names)
            if not _is_left(here / name, stays, ignored) and (here / name).is_file()
        )


def _is_left(path: Path, stays: Sequence[Path], ignored: set[Path]) -> bool:
    hidden = path.name.startswith(".") or path.name in LEFT_HERE or path.name.endswith(".egg-info")
    return hidden or path in stays or path in ignored


def _ignored(directory: Path) -> set[Path]:
    """What git ignores there, whole folders as one; nothing where git or a checkout is missing."""
    call = ["git", "-C", str(directory), "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    try:
        done = subprocess.run(call, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return set()
    return {directory / os.fsdecode(name).rstrip("/") for name in done.stdout.split(b"\0") if name}


def _metadata() -> tuple[tuple[str, str], ...]:
    """Name, version and requirements of the installed robustsweep, so that the cluster can say what it lacks."""
    try:
        found = importlib.metadata.distribution("robustsweep")
    except importlib.metadata.PackageNotFoundError:
        return ()
    text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    return ((f"robustsweep-{found.version}.dist-info/METADATA", text),)


def _too_large(parcel: Parcel, directory: Path) -> str:
    sizes: Counter[str] = Counter()
    for name, path in parcel.files:
        sizes[name.partition("/")[0]] += path.stat().st_size
    largest = ", ".join(f"{name} ({size / 2**20:.0f} MiB)" for name, size in sizes.most_common(3))
    return (
        f"{directory}: {parcel.size / 2**20:.0f} MiB would travel to the cluster, at most {LIMIT / 2**20:.0f} may. The "
        f"largest: {largest}. Put data where the nodes can read them, let git ignore what is not needed, or name a "
        "smaller folder with --working-dir"
    )


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, WHENEVER)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
