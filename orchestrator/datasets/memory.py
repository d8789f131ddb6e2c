"""Whether images will fit into memory, known before the first of them is decoded."""

from __future__ import annotations

import math
import os
from pathlib import Path

from orchestrator.errors import UserError

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container


def refuse_beyond_memory(count: int, shape: tuple[int, ...], memory: int | None = None) -> None:
    """Raises UserError where `count` uint8 images of a shape take more than half of the memory there is.

    Half, since they are copied once when they are handed to the workers.
    """
    wanted = count * math.prod(shape)
    memory = physical() if memory is None else memory
    if 2 * wanted > memory:
        raise UserError(
            f"dataset: {count:,} images of {'x'.join(map(str, shape))} take {_told(wanted)}, twice that when workers "
            f"get them, and there are {_told(memory)} of memory. Say how many in `train`, `validation` and `test`, or "
            "a smaller `size`"
        )


def physical() -> int:
    """Bytes of memory this machine has, or the container's limit where there is a lower one."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *filter(None, map(_limit, LIMITS))])


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" where there is none


def _told(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
