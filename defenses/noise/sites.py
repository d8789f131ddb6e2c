"""Where noise goes in a network: found by the types of its modules, in one pass of a black image."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.queries import querying
from defenses.inputs.front import behind

WHERE = ("blocks", "activations", "layers", "stem", "last_stage", "none")

_ACTIVATIONS = (
    *(nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Hardswish, nn.Softplus, nn.Softsign, nn.Tanh, nn.Threshold),
)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PROBES = 2  # images: a map whose first dimension is another is not one per example


@dataclass(frozen=True)
class Site:
    """The map that enters, or where `is_output` leaves, call number `call` of `module` in a pass.

    `shape` is that of one example's map: [C, H, W] as a rule, [C] after flattening.
    """

    module: str
    call: int
    is_output: bool
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its place in the network, without the dots that torch does not allow in a name."""
        name = self.module.replace(".", "/") or "whole"
        return f"{name}@{self.call}" if self.call else name


@dataclass(frozen=True)
class _Call:
    """One call of an activation or of a layer with weights, and the shapes of what went in and came out."""

    module: str
    number: int
    is_layer: bool
    entering: tuple[int, ...]
    leaving: tuple[int, ...]

    def entry(self) -> Site:
        return Site(self.module, self.number, False, self.entering)

    def exit(self) -> Site:
        return Site(self.module, self.number, True, self.leaving)


def sites(network: nn.Module, channels: int, size: int, where: str) -> list[Site]:
    """The sites of a network for images [channels, size, size], in the order in which a pass meets them.

    "blocks" (Learn2Perturb): before every activation, but within a block (a module of its own that is no mere
    container) before its last only, which in a residual block follows the addition. "activations": before every one.
    "layers": after every convolution and linear layer but the last. "stem": the first of the blocks' sites;
    "last_stage": those of them whose map is as large as the last one's; "none".

    Nothing lies behind the last layer, the classifier. Activations that are functions are not seen: a network without
    activation modules gets noise after its layers, one with a single layer before that layer.
    Raises ValueError where there is not even one.
    """
    if where == "none":
        return []
    prefix, network = behind(network)
    if prefix:
        return [
            replace(site, module=(prefix + site.module).rstrip(".")) for site in sites(network, channels, size, where)
        ]
    calls = _calls(network, channels, size)
    last = max((place for place, call in enumerate(calls) if call.is_layer), default=None)
    if last is None:
        kinds = ", ".join(kind.__name__ for kind in _LAYERS)
        raise ValueError(f"sites: needs a network with one of {kinds}; allowed for this one is none, got {where!r}")
    activations = [call for call in calls[:last] if not call.is_layer]
    layers = [call for call in calls[:last] if call.is_layer]
    if where == "layers" or not activations:
        found = [call.exit() for call in layers] or [calls[last].entry()]
    elif where == "activations":
        found = [call.entry() for call in activations]
    else:
        found = [call.entry() for call in _last_of_each_block(network, activations)]
    if where == "stem":
        return found[:1]
    if where == "last_stage":
        return [site for site in found if site.shape[1:] == found[-1].shape[1:]]
    return found


def _calls(network: nn.Module, channels: int, size: int) -> list[_Call]:
    """What activations and layers with weights are called in a pass, in order."""
    calls: list[_Call] = []
    counts: dict[str, int] = {}

    def note(name: str, module: nn.Module, entering: tuple[Tensor, ...], leaving: Tensor) -> None:
        number = counts.get(name, 0)
        counts[name] = number + 1
        if len(leaving) == _PROBES:
            shapes = tuple(entering[0].shape[1:]), tuple(leaving.shape[1:])
            calls.append(_Call(name, number, isinstance(module, _LAYERS), *shapes))

    handles = [
        module.register_forward_hook(functools.partial(note, name))
        for name, module in network.named_modules()
        if isinstance(module, (*_ACTIVATIONS, *_LAYERS))
    ]
    try:
        with querying(network), torch.no_grad():
            like = next(network.parameters(), torch.zeros(()))
            network(torch.zeros(_PROBES, channels, size, size, device=like.device, dtype=like.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _last_of_each_block(network: nn.Module, calls: list[_Call]) -> list[_Call]:
    modules = dict(network.named_modules())
    last = {owner: call for call in calls if (owner := _block(call.module, modules))}
    return [call for call in calls if last.get(_block(call.module, modules), call) == call]


def _block(name: str, modules: dict[str, nn.Module]) -> str:
    """The innermost module around another that is no mere container; "" is the network itself."""
    above = name.rpartition(".")[0]
    while above and type(modules[above]) in _CONTAINERS:
        above = above.rpartition(".")[0]
    return above
