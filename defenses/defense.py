"""What every defense offers; `tests/test_defenses_contract.py` holds the table to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from torch import nn

from attacks.draws import Draws
from attacks.surface import Surface
from defenses.data import Data
from defenses.networks.registry import Network
from defenses.state import Epoch, State
from defenses.training import Training


class Defense(Protocol):
    """A frozen dataclass whose fields are the defense's hyperparameters.

    `uses_threat`: whether training depends on `training.threat`. `neutral`: the fields at which it is standard
    training, None where there are none. `ready_epoch`: before so many epochs a rung says nothing about it.
    """

    name: ClassVar[str]
    uses_threat: ClassVar[bool]
    neutral: ClassVar[dict[str, Any] | None]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def ready_epoch(self) -> int: ...

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """Trains, and yields after each epoch; from `state` on, if given, as if it had never stopped."""
        ...

    def deployed(self, state: State) -> nn.Module:
        """The model to attack and to use: float images in [0, 1] -> logits, eval mode, nothing to train."""
        ...

    def surface(self) -> Surface:
        """What an attacker who knows the defense does."""
        ...
