"""Out of memory while training: how torch says it, and what is said to the user."""

from __future__ import annotations

import torch

_CPU_WORDS = ("DefaultCPUAllocator", "not enough memory")


class TrainingOutOfMemory(RuntimeError):
    """Not even the smallest part of a batch fits. Names batch, parts, device and what was asked for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator of torch refused, on a GPU or on the CPU; no other error counts."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)


def release(device: torch.device) -> None:
    """Give memory that is cached but not used back to the device, so that pieces of another size fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
