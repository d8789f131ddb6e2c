"""How to train: the settings every defense shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from attacks.threat import Threat
from defenses.adversarial import Adversarial
from defenses.augment import AUGMENTATIONS
from defenses.inputs.registry import Input
from defenses.schedule import SCHEDULES

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("fp32", "bf16")
KEEPS = ("best", "last")
MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class Training:
    """Settings of the shared training loop; raises ValueError for one out of range, saying what is allowed.

    `momentum` and `nesterov` are those of sgd; `weight_decay` is an l2 penalty under either optimizer;
    `warmup_epochs` raise the rate linearly from 0 before the `schedule` begins; `ema` is the decay per step of
    averaged weights, which are then the deployed ones (0: off); `clip` bounds the gradient's l2 norm (0: off);
    `keep` says which epoch's weights a trial ends with; `threat` is the sweep's, for defenses that train
    against an attacker; `adversarial` says which images of each batch are attacked before the defense sees them,
    `inputs` what stands in front of the network, `start` where its weights and buffers begin (`state.network_of`).
    """

    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: int = 0
    augment: str = "none"
    ema: float = 0.0
    precision: str = "fp32"
    clip: float = 0.0
    keep: str = "best"
    threat: Threat | None = None
    adversarial: Adversarial | None = None
    inputs: tuple[Input, ...] = ()
    start: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._integer("epochs", 1, MOST_EPOCHS)
        self._integer("batch_size", 2)  # batch norm cannot learn from one image
        self._integer("warmup_epochs", 0, self.epochs - 1)
        self._member("optimizer", OPTIMIZERS)
        self._member("schedule", tuple(SCHEDULES))
        self._member("augment", tuple(AUGMENTATIONS))
        self._member("precision", PRECISIONS)
        self._member("keep", KEEPS)
        self._number("lr", lambda value: value > 0, "finite and > 0")
        self._number("momentum", lambda value: 0 <= value < 1, "in [0, 1)")
        self._number("weight_decay", lambda value: value >= 0, "finite and >= 0")
        self._number("ema", lambda value: 0 <= value < 1, "in [0, 1)")
        self._number("clip", lambda value: value >= 0, "finite and >= 0")
        if self.nesterov and not self.momentum:
            raise ValueError(f"nesterov: must be false where momentum is 0, got {self.nesterov}")

    def rate_factor(self, epoch: int, batch: int, batches: int) -> float:
        """What the rate is multiplied by in one batch, all counted from 0: a warm-up to 1, then the schedule."""
        warmup = self.warmup_epochs
        if epoch < warmup:
            return (epoch * batches + batch + 1) / (warmup * batches)
        done = ((epoch - warmup) * batches + batch) / ((self.epochs - warmup) * batches)
        return SCHEDULES[self.schedule](done)

    def _integer(self, field: str, low: int, high: int | None = None) -> None:
        value = getattr(self, field)
        if not isinstance(value, int) or value < low or (high is not None and value > high):
            allowed = f">= {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"{field}: must be an integer {allowed}, got {value!r}")

    def _number(self, field: str, is_allowed: Callable[[float], bool], allowed: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or not is_allowed(value):
            raise ValueError(f"{field}: must be {allowed}, got {value!r}")

    def _member(self, field: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if value not in allowed:
            raise ValueError(f"{field}: must be one of {', '.join(allowed)}, got {value!r}")
