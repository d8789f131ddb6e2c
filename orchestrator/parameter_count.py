"""How many parameters a network has, without giving any of them a value."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from defenses import NETWORKS
from orchestrator.build import make


def parameter_count(network: Mapping[str, Any], shape: tuple[int, int, int]) -> int | None:
    """Of a normalised block, for images of this shape (channels, size, classes); None where it cannot be built."""
    return _counted(json.dumps(dict(network), sort_keys=True), shape)


@functools.lru_cache(maxsize=1024)
def _counted(block: str, shape: tuple[int, int, int]) -> int | None:
    try:
        with _Undrawn(), torch.device("meta"):
            model = make(NETWORKS, json.loads(block))(*shape)
    except (RuntimeError, ValueError, TypeError, ImportError):
        return None
    return sum(int(parameter.numel()) for parameter in model.parameters())


class _Undrawn(TorchFunctionMode):
    """Leaves out `normal_`, for which torch would load more than a second's modules on the device without numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))
