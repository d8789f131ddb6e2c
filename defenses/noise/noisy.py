"""A network with noise on its maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.sources import lending, stochastic_layers
from defenses.noise.feature_noise import FeatureNoise
from defenses.noise.sites import Site


class Noisy(nn.Module):
    """`network` with one of the layers of `noise` at each site; the network itself stays as it is.

    The layers draw from what they are lent (`attacks.sources.drawing`). Called without, every pass has draws of its
    own, by the row of the batch and the number of the pass. While `is_on` is False it is the network alone.
    """

    def __init__(self, network: nn.Module, sites: Sequence[Site], noise: nn.ModuleDict) -> None:
        super().__init__()
        self.network = network
        self.noise = noise
        self.sites = tuple(sites)
        self.is_on = bool(sites)
        self.passes = 0
        """How many passes had draws of their own."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_on:
            logits: Tensor = self.network(x)
            return logits
        with self._sourced(x), self._perturbing():
            logits = self.network(x)
        return logits

    @contextmanager
    def _sourced(self, x: Tensor) -> Iterator[None]:
        """Within the block every noise layer has a source."""
        bare = [(name, layer) for name, layer in stochastic_layers(self) if layer.draws is None]
        if bare:
            self.passes += 1
        with lending(bare, Draws(self.passes, torch.arange(len(x), device=x.device))):
            yield

    @contextmanager
    def _perturbing(self) -> Iterator[None]:
        """Within the block the network's maps are perturbed, each in its own call of its module."""
        handles = []
        for module, here in _by_module(self.sites).items():
            layer, hooks = self.network.get_submodule(module), _Hooks(here, self.noise)
            handles.append(layer.register_forward_pre_hook(hooks.before))
            handles.append(layer.register_forward_hook(hooks.after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def new_noise(sites: Sequence[Site], granularity: str, sigma: float | Mapping[str, float]) -> nn.ModuleDict:
    """A noise layer for each site, by its name, all its deviations `sigma`, or what `sigma` has for that name."""
    starts = sigma if isinstance(sigma, Mapping) else {site.name: sigma for site in sites}
    return nn.ModuleDict({site.name: FeatureNoise(site.shape, granularity, starts[site.name]) for site in sites})


class _Hooks:
    """Perturbs the calls of one module in one pass."""

    def __init__(self, sites: dict[int, Site], noise: nn.ModuleDict) -> None:
        self._sites, self._noise, self._call = sites, noise, -1

    def before(self, _module: nn.Module, entering: tuple[Any, ...]) -> tuple[Any, ...] | None:
        self._call += 1
        site = self._sites.get(self._call)
        if site is None or site.is_output:
            return None
        return self._noise[site.name](entering[0]), *entering[1:]

    def after(self, _module: nn.Module, _entering: tuple[Any, ...], leaving: Tensor) -> Tensor | None:
        site = self._sites.get(self._call)
        if site is None or not site.is_output:
            return None
        perturbed: Tensor = self._noise[site.name](leaving)
        return perturbed


def _by_module(sites: Sequence[Site]) -> dict[str, dict[int, Site]]:
    """Module -> number of the call -> site."""
    found: dict[str, dict[int, Site]] = {}
    for site in sites:
        found.setdefault(site.module, {})[site.call] = site
    return found
