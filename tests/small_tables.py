"""Small networks, defenses, attacks and datasets that use every type a field may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from attacks.threat import Threat
from orchestrator.tables import Tables


@dataclass(frozen=True)
class Pgd:
    name: ClassVar[str] = "pgd"
    steps: int = 10
    step_size: float | None = None
    loss: Literal["cross_entropy", "margin"] = "cross_entropy"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: must be >= 1, got {self.steps}")


ATTACKS: dict[str, type] = {"pgd": Pgd}


@dataclass(frozen=True)
class Lenet:
    name: ClassVar[str] = "lenet"


@dataclass(frozen=True)
class Resnet:
    name: ClassVar[str] = "resnet"
    depth: int = 20
    width: int = 16

    def __post_init__(self) -> None:
        if self.depth % 6 != 2:
            raise ValueError(f"depth: must be 6n + 2, got {self.depth}")


@dataclass(frozen=True)
class Mlp:
    name: ClassVar[str] = "mlp"
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if sum(self.hidden) > 1000:
            raise ValueError(f"hidden: must have at most 1000 units together, got {sum(self.hidden)}")


@dataclass(frozen=True)
class Plain:
    name: ClassVar[str] = "plain"


@dataclass(frozen=True)
class Noisy:
    name: ClassVar[str] = "noisy"
    scale: float = 0.1
    sites: tuple[str, ...] = ("stem", "head")
    per_layer: Mapping[str, float] = field(default_factory=dict)
    start: float | None = None
    is_shared: bool = False
    form: Literal["gaussian", "laplace"] = "gaussian"
    attack: Any = field(default=None, metadata={"kinds": ATTACKS})

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise ValueError(f"scale: must be >= 0, got {self.scale}")
        if self.start is not None and self.start > self.scale:
            raise ValueError(f"the start, {self.start}, is above the scale, {self.scale}")


@dataclass(frozen=True)
class Fog:
    name: ClassVar[str] = "fog"
    density: float = 0.5


@dataclass(frozen=True)
class Training:
    epochs: int = 30
    lr: float = 0.1
    optimizer: str = "sgd"
    nesterov: bool = False
    threat: Threat | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"optimizer: must be sgd or adam, got {self.optimizer!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs: must be >= 1, got {self.epochs}")


@dataclass(frozen=True)
class Toy:
    classes: int = 10

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes: must be >= 2, got {self.classes}")


@dataclass(frozen=True)
class Files:
    pattern: str
    download: bool = False


NETWORKS: dict[str, type] = {"lenet": Lenet, "resnet": Resnet, "mlp": Mlp}
DEFENSES: dict[str, type] = {"plain": Plain, "noisy": Noisy}
TABLES = Tables(
    networks=NETWORKS,
    defenses=DEFENSES,
    attacks=ATTACKS,
    cascades={"strong_pgd": (Pgd(40), Pgd(40, loss="margin"))},
    datasets={"toy": Toy, "files": Files},
    training=Training,
    inputs={"fog": Fog},
)
