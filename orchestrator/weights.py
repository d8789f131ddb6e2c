"""Weights from a file of safetensors, ours or another's, put into a network."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from orchestrator.errors import UserError

MOST_SHOWN = 8
_OF_TRAINING = (
    "model.",
    "ema.",
    "optimizer.",
)  # how the names in a checkpoint of ours begin, unless a defense adds some


def read_file(path: str | Path, where: str) -> bytes:
    """The bytes of a file. Raises UserError, beginning with `where`, where it cannot be read."""
    try:
        return Path(path).expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def tensors_in(content: bytes, name: str, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises UserError where it is none."""
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{where}: {name} must be a file of safetensors: {error}") from None


def put_into(network: nn.Module, found: dict[str, Tensor], name: str, where: str) -> None:
    """Give a network the weights of a file.

    A checkpoint of a trial has them under `model.` (`ema.` where they were averaged) beside what training alone needs;
    in others each name may have `module.` in front. Raises UserError, naming what is missing, unexpected or of another
    shape, and for a defense that adds parts to its network, which would be left out.
    """
    wanted = network.state_dict()
    weights = found if found.keys() == wanted.keys() else _unwrapped(found, name, where)
    shapes = [
        f"{key} {list(weights[key].shape)} for {list(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    missing, unexpected = [key for key in wanted if key not in weights], [key for key in weights if key not in wanted]
    problems = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    said = [f"{what}: {_few(keys)}" for what, keys in problems if keys]
    if said:
        raise UserError(f"{where}: {name} does not fit the network; {'; '.join(said)}")
    network.load_state_dict(weights)


def _unwrapped(found: dict[str, Tensor], name: str, where: str) -> dict[str, Tensor]:
    """The network's own weights under the names it has for them."""
    if model := _under(found, "model"):
        beside = sorted({key.partition(".")[0] for key in found if not key.startswith(_OF_TRAINING)})
        if beside:
            raise UserError(
                f"{where}: {name} holds {', '.join(beside)} beside the network: parts of a defense, without which it "
                "is another model; `robustsweep evaluate RUN --trial ID` attacks it as it is deployed"
            )
        return _under(found, "ema") or model
    return _under(found, "module") if found and all(key.startswith("module.") for key in found) else found


def _under(found: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {key[len(start) :]: value for key, value in found.items() if key.startswith(start)}


def _few(keys: list[str]) -> str:
    more = len(keys) - MOST_SHOWN
    return ", ".join(keys[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
