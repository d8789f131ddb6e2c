"""How robust any model in a file is, no sweep behind it: what `robustsweep evaluate MODEL.safetensors` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attacks.threat import Threat
from defenses import NETWORKS
from orchestrator.build import make
from orchestrator.cells import AXES
from orchestrator.errors import SpecError, UserError
from orchestrator.evaluating import best_device
from orchestrator.evaluation import Robustness, evaluate_robustness
from orchestrator.radii import read_threat, refuse_levels
from orchestrator.spec import load_spec
from orchestrator.spec_models import SPLITS
from orchestrator.splits import load_test, load_training
from orchestrator.wanted import attack_blocks
from orchestrator.weights import put_into, read_file, tensors_in
from orchestrator.wording import one_of, shown

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.splits import Split

Block = str | Mapping[str, Any]


def evaluate_checkpoint(
    path: str | Path,
    network: Block,
    dataset: Block,
    threat: str | Threat,
    attacks: Block | Sequence[Block] = "strong_pgd",
    *,
    split: str = "test",
    eps: Sequence[float] = (),
    examples: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> Robustness:
    """Attack the model in a file of safetensors on a dataset. `network` and `dataset` are names or blocks of a spec.

    `threat` is such as "linf:8/255"; `eps` adds radii for the curve. The attacker knows of no defense. Raises UserError
    where the file, the network and the data do not go together, or anything else of the call is wrong.
    """
    threat = threat if isinstance(threat, Threat) else read_threat(threat)
    blocks = attack_blocks([attacks] if isinstance(attacks, (str, Mapping)) else list(attacks))
    if split not in SPLITS:
        raise UserError(f"--split: {one_of(SPLITS, split)}")
    if examples is not None and examples < 1:
        raise UserError(f"--examples: must be a whole number >= 1, got {examples}")
    network_block, dataset_block = _blocks(network, dataset, threat, seed)
    tensors = tensors_in(read_file(path, "MODEL"), str(path), "MODEL")
    data = _split(dataset_block, split, seed)
    model = _network(network_block, data)
    put_into(model, tensors, str(path), "MODEL")
    refuse_levels(threat.norm, [*eps, threat.eps], data.images[0].size)
    rows = slice(0, examples)
    return evaluate_robustness(
        model.eval().requires_grad_(False).to(device or best_device()),
        torch.from_numpy(data.images[rows].copy()).float() / 255,
        torch.from_numpy(data.labels[rows].copy()),
        threat=threat, attacks=blocks, eps=list(eps), seed=seed,
        example_ids=torch.from_numpy(data.example_ids[rows].copy()),
    )  # fmt: skip


def _blocks(network: Block, dataset: Block, threat: Threat, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two blocks in normal form: read as the spec of a sweep with one trial would be."""
    spec = {
        "name": "evaluate", "seed": seed, "dataset": dataset, "network": network, "defense": "standard",
        "threat": {"norm": threat.norm, "eps": threat.eps},
    }  # fmt: skip
    try:
        cell = load_spec(spec).cells()[0]
    except SpecError as error:
        lines = [line.removeprefix("spec ") for line in str(error).splitlines()]
        known = [f"--{line}" if line.split(".")[0].split(":")[0] in AXES else line for line in lines]
        raise UserError("\n".join(known)) from None
    if cell.space.dimensions():
        raise UserError(f"--network: must be one network, with a value for every setting, got {shown(network)}")
    return cell.space.configure(lambda path, hole: None).network, cell.dataset_block()


def _split(block: dict[str, Any], split: str, seed: int) -> Split:
    return load_test(block, seed) if split == "test" else load_training(block, seed)[1]


def _network(block: dict[str, Any], data: Split) -> nn.Module:
    channels, height, width = data.images.shape[1:]
    if height != width:
        raise UserError(f"--dataset: images must be square, got {height} rows of {width}")
    try:
        model: nn.Module = make(NETWORKS, block)(channels, height, data.classes)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--network: cannot be built for images {channels}x{height}x{width}: {error}") from None
    return model
