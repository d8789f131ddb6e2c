"""All that training changes, and its passage into a state and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from attacks.draws import Draws
from defenses.data import Data
from defenses.inputs.front import behind
from defenses.networks.normalise import Normalise
from defenses.networks.registry import Description, Network, build, describe
from defenses.state import JSON, State, tensors, under
from defenses.training import Training


@dataclass(frozen=True, eq=False)
class Learner:
    """Modules and optimizers by name; the names are prefixes in the state.

    modules["model"] is the network. A defense that trains more (prototypes, noise) puts its modules and
    optimizers beside; each optimizer's own rate is what the schedule scales.
    """

    network: Description
    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]

    @property
    def model(self) -> nn.Module:
        return self.modules["model"]

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for module in self.modules.values() for parameter in module.parameters()]

    @property
    def learning_rate(self) -> float:
        """Of the network's optimizer now."""
        rate: float = self.optimizers["model"].param_groups[0]["lr"]
        return rate

    def scale_rates(self, factor: float) -> None:
        """Every optimizer's rate becomes `factor` times what it was made with."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = factor * group.setdefault("initial_lr", group["lr"])

    def state(self) -> State:
        """Copies of everything, which further training leaves alone."""
        state: State = {"network": dict(self.network)}
        for name, module in self.modules.items():
            state |= under(name, module.state_dict().items())
        for name, optimizer in self.optimizers.items():
            state |= under(f"optimizer.{name}", _memory(optimizer))
        return state

    def restore(self, state: State) -> None:
        """Takes over what `state` gave, and leaves that state as it is.

        Raises ValueError when it belongs to another network.
        """
        made_by: JSON | Tensor = state["network"]
        if made_by != self.network:
            raise ValueError(f"state: must be of network {self.network}, got one of {made_by}")
        for name, module in self.modules.items():
            module.load_state_dict(tensors(state, name))
        for name, optimizer in self.optimizers.items():
            _remember(optimizer, tensors(state, f"optimizer.{name}"))


def new_learner(network: Network, data: Data, training: Training, draws: Draws) -> Learner:
    """A network initialised from `draws`, normalised to the data, with the optimizer that `training` asks for.

    It stands behind `training.inputs`, and begins with the weights and buffers of `training.start` if given.
    """
    description = describe(network, data.channels, data.size, data.classes, training.inputs)
    model = build(description, draws.fork("initial weights").seed)
    mean, std = data.mean_and_std()
    for module in model.modules():
        if isinstance(module, Normalise):
            module.set(mean, std)
    if training.start is not None:
        behind(model)[1].load_state_dict(training.start)
    model.to(data.device)
    return Learner(description, {"model": model}, {"model": new_optimizer(training, model.parameters())})


def new_optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> Optimizer:
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, training.lr, weight_decay=training.weight_decay, foreach=True)
    return torch.optim.SGD(
        parameters,
        training.lr,
        training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.nesterov,
        foreach=True,
    )


def _memory(optimizer: Optimizer) -> Iterable[tuple[str, Tensor]]:
    """What an optimizer remembers of each parameter, by number: ("3.momentum_buffer", tensor)."""
    for number, remembered in optimizer.state_dict()["state"].items():
        for key, value in remembered.items():
            if isinstance(value, Tensor):
                yield f"{number}.{key}", value


def _remember(optimizer: Optimizer, memory: dict[str, Tensor]) -> None:
    """The inverse of `_memory`. Copies, since an optimizer changes its memory in place."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    remembered: dict[int, dict[str, Any]] = {}
    for key, value in memory.items():
        number, field = key.split(".", 1)
        parameter = parameters[int(number)]
        is_alike = field != "step" and value.shape == parameter.shape
        copy = torch.empty_like(parameter).copy_(value) if is_alike else value.clone()  # laid out as the parameter is
        remembered.setdefault(int(number), {})[field] = copy
    optimizer.load_state_dict({**optimizer.state_dict(), "state": remembered})
