"""The most memory that one trial used, in a worker that trains one after the other."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import torch

_FORGET_PEAK = "5"  # see proc(5), clear_refs


def forget_peak(device: str) -> None:
    """Count from now on. Where the system does not let us, a process's peak is that of its whole life."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_FORGET_PEAK)


def peak_memory_bytes(device: str) -> int:
    """The most memory used since `forget_peak`: on a GPU by tensors, else by the whole process."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
