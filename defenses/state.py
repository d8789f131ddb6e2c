"""What training hands out after each epoch: enough to go on from, and to deploy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from defenses.networks.registry import build

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
State: TypeAlias = "dict[str, Tensor | JSON]"
"""Flat. "epoch": epochs done; "microbatches": in how many parts a batch fits into memory; "network": description of
the module; "model.*": its weights and buffers; "ema.*": their averages, where asked for; "optimizer.*". A defense adds
prefixes of its own."""


@dataclass(frozen=True, eq=False)
class Epoch:
    """One epoch of training: its mean loss, the rate of its last batch, the state after it.

    `microbatches` is in how many parts each batch went through memory; `remarks` are sentences on what that changed.
    """

    loss: float
    learning_rate: float
    state: State
    microbatches: int = 1
    remarks: tuple[str, ...] = ()


def deployed(state: State) -> nn.Module:
    """The network of a state as it is used: averaged weights where there are any, eval mode, nothing to train."""
    model = build(_description(state))
    weights = tensors(state, "ema") or tensors(state, "model")
    model.load_state_dict(weights)
    model.to(next(iter(weights.values())).device)
    return model.eval().requires_grad_(False)


def network_of(state: State) -> dict[str, Tensor]:
    """Weights and buffers of the network as it is used, without what stands in front: a start for another training."""
    weights = tensors(state, "ema") or tensors(state, "model")
    return tensors(dict(weights), "network") if "input" in _description(state) else weights


def tensors(state: State, prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, which is cut off: `tensors(state, "model")["conv1.weight"]`."""
    start = prefix + "."
    found = ((key[len(start) :], value) for key, value in state.items() if key.startswith(start))
    return {key: value for key, value in found if isinstance(value, Tensor)}


def under(prefix: str, named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor | JSON]:
    """Detached, contiguous copies of tensors under a prefix: the inverse of `tensors`."""
    return {f"{prefix}.{key}": value.detach().clone(memory_format=torch.contiguous_format) for key, value in named}


def is_finite(state: State) -> bool:
    """Whether no weight, average or optimizer's memory is infinite or NaN."""
    return all(bool(torch.isfinite(value).all()) for value in state.values() if isinstance(value, Tensor))


def _description(state: State) -> dict[str, JSON]:
    description = state["network"]
    assert isinstance(description, dict)
    return description
