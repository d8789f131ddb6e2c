"""Which addresses a process and its children listen on, read from /proc. As a script: those of a local Ray."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from pathlib import Path


def listening(root: int) -> list[tuple[str, str, int]]:
    """Command, address and port of each TCP socket that `root` or one of its descendants listens on."""
    found = []
    for process in descendants(root):
        sockets = _sockets(process)
        command = Path(f"/proc/{process}/comm").read_text().strip()
        found += [(command, address, port) for inode, address, port in _tables(process) if inode in sockets]
    return sorted(set(found))


def descendants(root: int) -> set[int]:
    parents = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _sockets(process: int) -> set[str]:
    inodes = set()
    for handle in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = os.readlink(handle)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


def _tables(process: int) -> list[tuple[str, str, int]]:
    """Inode, address and port of what listens, in either family."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                address, _, port = words[1].partition(":")
                found.append((words[9], _address(address), int(port, 16)))
    return found


def _address(text: str) -> str:
    """An address as the kernel prints it: words of four bytes, each in the byte order of the machine."""
    data = bytes.fromhex(text)
    words = [data[i : i + 4] for i in range(0, len(data), 4)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(packed))


if __name__ == "__main__":
    import ray

    from orchestrator.cluster.session import connected

    with connected(None) as nodes:
        gcs = ray.get_runtime_context().gcs_address
        print(json.dumps({"nodes": len(nodes), "gcs": gcs, "listening": listening(os.getpid())}))
