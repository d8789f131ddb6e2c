"""A model that exists already, to be measured beside those that are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from attacks.draws import Draws
from attacks.surface import Surface
from defenses.data import Data
from defenses.networks.registry import Network
from defenses.state import Epoch, State, deployed
from defenses.training import Training


@dataclass(frozen=True)
class Pretrained:
    """No training: the weights of the network come from a file.

    `path` names a file of safetensors, relative to the working directory: a checkpoint of a trial, or another's state
    dict. `digest` is what the file holds, 16 hex digits of its SHA-256; given, another content is refused. It is not in
    the table of defenses, since it is none, and nothing here opens the file.
    """

    name: ClassVar[str] = "pretrained"
    uses_threat: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any] | None] = None
    ready_epoch: ClassVar[int] = 0

    path: str
    digest: str | None = None

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise ValueError("path: must name a file of safetensors, got nothing")

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """No epochs."""
        return iter(())

    def deployed(self, state: State) -> nn.Module:
        return deployed(state)

    def surface(self) -> Surface:
        return Surface()
