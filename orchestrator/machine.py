"""What this machine has, and what a sweep would run on it at a time: known without a Ray cluster."""

from __future__ import annotations

import os

import torch

from orchestrator.cluster.allocation import Allocation, Node, allocate
from orchestrator.errors import UserError
from orchestrator.spec import ResourcesSpec


def allocation_here(wanted: ResourcesSpec) -> tuple[Allocation | None, str]:
    """Slots and evaluators as a local Ray would have them, or None and why they do not fit."""
    node = Node(float(os.cpu_count() or 1), float(torch.cuda.device_count()))
    try:
        return allocate(wanted, [node]), ""
    except UserError as error:
        return None, str(error)
