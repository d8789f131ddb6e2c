"""Files written once in a store that can only overwrite: each writer claims the name first, one of them goes on.

S3 through pyarrow has no "write unless it is there". What it has is that a write is seen by every later listing. So a
writer puts a claim, and writes the file only when a listing afterwards shows no claim but its own and the file is
not there: of two writers, at least one sees the other. Who sees a claim before its own in order withdraws.
A writer that died leaves its claim; it is passed over when it is known to be dead, or after `STALE` seconds by the
clock of the store. What this rests on: no writer takes longer than that between its listing and its write.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from orchestrator.storage.processes import Process

CLAIMS = ".claims"
STALE = 30.0  # seconds after which a claim that was not renewed is a dead writer's
PROMPT = 10.0  # seconds from the claim within which its writer must begin to write, or claim again


class Overwriting(Protocol):
    """What a store that can only overwrite offers."""

    def replace(self, name: str, content: bytes) -> None: ...
    def exists(self, name: str) -> bool: ...
    def delete(self, name: str) -> None: ...
    def changed(self, directory: str) -> dict[str, float]: ...


def create_once(
    files: Overwriting,
    name: str,
    content: bytes,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Write a file unless there is one; of several writers one gets True, and its file stays."""
    kind = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    mine = f"{kind}.{_writer()}"
    turn = 0
    while not files.exists(name):
        began = clock()
        files.replace(f"{CLAIMS}/{mine}", b"")
        is_first = True
        try:
            while is_first:
                others = _others(files, kind, mine)
                if not others:
                    if files.exists(name):
                        return False
                    if clock() - began < PROMPT:
                        files.replace(name, content)
                        return True
                is_first = not others or mine < min(others)
                if is_first:  # the others withdraw; the claim is renewed, so that nobody takes it for a dead one's
                    pause(random.uniform(0.0, 0.05))
                    began = clock()
                    files.replace(f"{CLAIMS}/{mine}", b"")
        finally:
            files.delete(f"{CLAIMS}/{mine}")
        turn += 1
        pause(random.uniform(0.0, min(1.0, 0.05 * 2**turn)))
    return False


def _others(files: Overwriting, kind: str, mine: str) -> list[str]:
    """The claims of living writers on the same name; those of dead ones are cleared away."""
    claims = files.changed(CLAIMS)
    now = claims.get(mine)
    if now is None:  # taken for dead and cleared away: claim again
        return [""]
    living = []
    for claim, at in claims.items():
        if claim == mine:
            continue
        if now - at > STALE or _is_dead(claim):
            files.delete(f"{CLAIMS}/{claim}")
        elif claim.partition(".")[0] == kind:
            living.append(claim)
    return living


def _writer() -> str:
    """Of one thread at a time: what it left when its last try failed is its own."""
    return f"{Process.this().name}.{threading.get_ident()}"


def _is_dead(claim: str) -> bool:
    """Whether the claim is of a process of this machine that is no more."""
    writer = Process.named(claim.partition(".")[2].rpartition(".")[0])
    return writer is not None and writer.is_alive() is False
