"""Noise on maps: where it goes, that it is each example's own, how its size is moved."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.sources import drawing, stochastic_layers
from defenses.networks import NETWORKS, ConvNet, LeNet, Mlp, Network, ResNet, build, describe
from defenses.noise.feature_noise import GRANULARITIES, FeatureNoise
from defenses.noise.noisy import Noisy, new_noise
from defenses.noise.push import ANNEALINGS, lift, new_noise_optimizer, regularizer
from defenses.noise.sites import WHERE, sites
from defenses.seeding import seeded


def made(network: Network, channels: int = 1, size: int = 8) -> nn.Module:
    return build(describe(network, channels, size, 3))


def noisy(
    network: nn.Module, where: str = "blocks", granularity: str = "element", sigma: float = 0.25, size: int = 8
) -> Noisy:
    found = sites(network, 1, size, where)
    return Noisy(network, found, new_noise(found, granularity, sigma)).eval()


def images(count: int, size: int = 8) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def ask(model: nn.Module, x: Tensor, ids: list[int], seed: int = 0) -> Tensor:
    with drawing(model, Draws(seed, torch.tensor(ids))):
        logits: Tensor = model(x)
    return logits


def test_a_resnet_has_the_sites_of_the_paper() -> None:
    """After the stem's batch norm and after each block's addition: 10 modules of 102,400 deviations in ResNet-20."""
    small = sites(made(ResNet(8, 2)), 1, 8, "blocks")
    assert [(site.name, site.shape) for site in small] == [
        ("relu1", (2, 8, 8)),
        ("stage1/0/relu2", (2, 8, 8)),
        ("stage2/0/relu2", (4, 4, 4)),
        ("stage3/0/relu2", (8, 2, 2)),
    ]
    found = sites(made(ResNet(20, 16), 3, 32), 3, 32, "blocks")
    assert len(found) == 10
    assert sum(math.prod(site.shape) for site in found) == 102_400


@pytest.mark.parametrize(
    ("network", "where", "expected"),
    [
        (Mlp((6, 4)), "blocks", [(6,), (4,)]),
        (Mlp(()), "blocks", [(64,)]),  # one layer: before it
        (LeNet(), "blocks", [(20, 12, 12), (50, 2, 2), (500,)]),
        (LeNet(), "last_stage", [(500,)]),
        (Mlp((6, 4)), "last_stage", [(6,), (4,)]),
        (ConvNet(), "activations", [(32, 4, 4), (32, 4, 4), (64, 2, 2), (64, 1, 1)]),
        (ConvNet(), "layers", [(32, 8, 8), (32, 4, 4), (64, 2, 2), (64, 1, 1)]),  # the last convolution gives classes
        (ResNet(8, 2), "activations", [(2, 8, 8)] * 3 + [(4, 4, 4)] * 2 + [(8, 2, 2)] * 2),
        (ResNet(14, 2), "last_stage", [(8, 2, 2)] * 2),
        (ResNet(8, 2), "stem", [(2, 8, 8)]),
        (ResNet(8, 2), "none", []),
    ],
)
def test_sites_by_hand(network: Network, where: str, expected: list[tuple[int, ...]]) -> None:
    assert [site.shape for site in sites(made(network), 1, 8, where)] == expected


class Bottleneck(nn.Module):
    """One ReLU for two maps of different width, as in torchvision's networks."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.wide(self.relu(self.narrow(x))) + x)
        return out


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 2, 1), nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(F.relu(self.conv(x)).flatten(1))
        return logits


class Folding(nn.Module):
    """Its second activation sees quarters of images as examples."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
        self.quarters = nn.Sequential(nn.Linear(32, 4), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.quarters(self.body(x).view(-1, 32)).view(len(x), 16))
        return logits


def bottlenecks() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 1), nn.ReLU(), Bottleneck(), Bottleneck(), nn.Flatten()),
        *(nn.Linear(256, 3), nn.LeakyReLU()),  # nothing behind the last layer
    )


def test_a_plugins_blocks_are_found_by_their_modules() -> None:
    found = sites(bottlenecks(), 1, 8, "blocks")
    assert [site.name for site in found] == ["1", "2/relu@1", "3/relu@1"]
    assert [site.shape for site in found] == [(4, 8, 8)] * 3
    every = sites(bottlenecks(), 1, 8, "activations")
    assert [site.name for site in every] == ["1", "2/relu", "2/relu@1", "3/relu", "3/relu@1"]
    layers = sites(bottlenecks(), 1, 8, "layers")
    assert [site.name for site in layers] == ["0", "2/narrow", "2/wide", "3/narrow", "3/wide"]
    assert all(site.is_output for site in layers)
    assert [(site.name, site.is_output) for site in sites(Functional(), 1, 8, "blocks")] == [("conv", True)]
    with pytest.raises(
        ValueError, match=r"^sites: needs a network with one of Conv1d, .* allowed .* none, got 'stem'$"
    ):
        sites(nn.Flatten(), 1, 8, "stem")


def test_a_map_that_is_not_one_per_example_is_no_site() -> None:
    assert [site.name for site in sites(Folding(), 1, 8, "activations")] == ["body/1"]


@pytest.mark.parametrize(
    "make", [bottlenecks, Functional, *(lambda f=family: made(f()) for family in NETWORKS.values())]
)
@pytest.mark.parametrize("where", [where for where in WHERE if where != "none"])
def test_any_network_can_be_made_noisy_and_stays_itself(make: Callable[[], nn.Module], where: str) -> None:
    with seeded(0, torch.device("cpu")):
        plain = make().eval()
    x, modes = images(3), [module.training for module in plain.modules()]
    before = plain(x)
    model = noisy(plain, where)
    assert len(stochastic_layers(model)) == len(model.sites) > 0
    perturbed = ask(model, x, [0, 1, 2])
    assert not torch.isclose(perturbed, before, atol=1e-6).all(1).any()
    assert torch.equal(plain(x), before)
    assert [module.training for module in plain.modules()] == modes
    torch.autograd.backward(perturbed.square().sum())
    assert all((layer.sigma.grad != 0).any() for _, layer in stochastic_layers(model))
    model.is_on = False
    assert torch.equal(model(x), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_coarse_normal_is_normal_and_its_places_are_not_correlated() -> None:
    """Kolmogorov and Smirnov on 60,000 values; places that share a hash lie a quarter or a half apart."""
    values = Draws(7, torch.arange(600)).coarse_normal(100)
    assert stats.kstest(values.flatten(), "norm").pvalue > 0.01
    assert values.abs().max() < 4.9
    wide = Draws(7, torch.arange(400)).coarse_normal(400)
    bound = 4 / 400  # four standard deviations of a correlation of 160,000 pairs
    for apart in (1, 2, 3, 4, 100, 200, 300):
        assert abs((wide * wide.roll(apart, 1)).mean()) < bound
        assert abs((wide.square() * wide.roll(apart, 1).square()).mean() - 1) < 3 * bound
    assert abs((wide[1:] * wide[:-1]).mean()) < bound


@pytest.mark.parametrize("shape", [(1,), (3, 1, 2), (4,), (7, 5), (0,)])
def test_coarse_normal_gives_each_example_its_own_block(shape: tuple[int, ...]) -> None:
    draws = Draws(1, torch.tensor([4, 5, 4]))
    values = draws.coarse_normal(*shape)
    assert values.shape == (3, *shape)
    assert torch.equal(values[0], values[2])
    assert torch.equal(draws.select(torch.tensor([1])).coarse_normal(*shape)[0], values[1])
    assert values.numel() == 0 or not torch.equal(values[0], values[1])


@pytest.mark.parametrize("network", [Mlp((6,)), ResNet(8, 2)], ids=["mlp", "resnet"])
def test_noise_belongs_to_the_example_not_to_the_batch(network: Network) -> None:
    model, x = noisy(made(network)), images(4)
    whole = ask(model, x, [7, 8, 9, 7])
    parts = torch.cat([ask(model, x[[2, 0]], [9, 7]), ask(model, x[[1]], [8])])
    assert torch.allclose(parts[[1, 2, 0]], whole[:3], atol=1e-6)
    copies = ask(model, x[[0, 0, 0]], [7, 8, 7])
    assert torch.allclose(copies[0], copies[2], atol=1e-6)
    assert not torch.allclose(copies[0], copies[1], atol=1e-3)
    assert not torch.allclose(ask(model, x, [7, 8, 9, 7], seed=1), whole, atol=1e-3)


def test_layers_of_equal_shape_do_not_get_the_same_noise() -> None:
    model = noisy(made(ResNet(8, 2)))
    seen: list[Tensor] = []
    for _, layer in stochastic_layers(model)[:2]:
        layer.register_forward_hook(lambda _layer, entering, leaving: seen.append((leaving - entering[0]).detach()))
    ask(model, images(2), [0, 1])
    assert seen[0].shape == seen[1].shape
    assert abs(float(torch.corrcoef(torch.stack([noise.flatten() for noise in seen]))[0, 1])) < 0.2


def test_noise_has_the_deviation_that_was_set_in_any_layout_of_memory() -> None:
    layer = FeatureNoise((2, 30, 30), "channel", 1.0)
    layer.sigma.data.copy_(torch.tensor([0.5, 2.0])[:, None, None])
    layer.draws = Draws(0, torch.arange(50))
    x = torch.full((50, 2, 30, 30), 3.0)
    noise = layer(x) - 3
    assert noise.mean((0, 2, 3)).abs().max() < 0.03
    assert torch.allclose(noise.std((0, 2, 3)), torch.tensor([0.5, 2.0]), rtol=0.02)
    assert torch.equal(layer(x.to(memory_format=torch.channels_last)), layer(x))


@pytest.mark.parametrize(
    ("shape", "granularity", "expected", "sharing"),
    [
        ((3, 4, 5), "element", (3, 4, 5), 1),
        ((3, 4, 5), "channel", (3, 1, 1), 20),
        ((3, 4, 5), "layer", (1, 1, 1), 60),
        ((6,), "channel", (6,), 1),
        ((6,), "layer", (1,), 6),
        ((9, 4), "channel", (1, 4), 9),  # tokens: channels last
    ],
)
def test_granularity_by_hand(shape: tuple[int, ...], granularity: str, expected: tuple[int, ...], sharing: int) -> None:
    layer = FeatureNoise(shape, granularity, 0.25)
    assert tuple(layer.sigma.shape) == expected
    assert layer.sharing == sharing


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gradient_of_a_deviation_is_that_of_finite_differences(granularity: str) -> None:
    model = noisy(made(Mlp((5, 4))), granularity=granularity).double()
    x, y = images(6).double(), torch.arange(6) % 3

    def loss() -> Tensor:
        return F.cross_entropy(ask(model, x, list(range(6))), y)

    torch.autograd.backward(loss())
    for _, layer in stochastic_layers(model):
        sigma, expected = layer.sigma.data.view(-1), torch.empty(layer.sigma.numel(), dtype=torch.float64)
        for place in range(len(sigma)):
            sides = []
            for change in (1e-6, -2e-6):
                sigma[place] += change
                sides.append(float(loss().detach()))
            sigma[place] += 1e-6
            expected[place] = (sides[0] - sides[1]) / 2e-6
        assert torch.allclose(layer.sigma.grad.view(-1), expected, rtol=1e-5, atol=1e-8)
        assert expected.abs().max() > 1e-4


def a_layer(granularity: str, *values: float) -> nn.ModuleDict:
    layer = FeatureNoise((2, 1, 1), granularity, 1.0)
    layer.sigma.data.copy_(torch.tensor(values).view_as(layer.sigma))
    return nn.ModuleDict({"only": layer})


def test_the_regularizer_by_hand() -> None:
    """-(0.5 + 0.2) with slopes -1 / (2 sqrt(sigma)); shared by two elements it counts twice."""
    noise = a_layer("element", 0.25, 0.04)
    value = regularizer(noise)
    torch.autograd.backward(value)
    assert value.item() == pytest.approx(-0.7)
    assert noise["only"].sigma.grad.flatten().tolist() == pytest.approx([-1.0, -2.5])
    shared = a_layer("layer", 0.25)
    assert regularizer(shared).item() == pytest.approx(-1.0)
    assert regularizer(nn.ModuleList([noise, shared])).item() == pytest.approx(-1.7)


def test_annealings_by_hand() -> None:
    found = {name: [tau(epochs) for epochs in (0, 1, 3)] for name, tau in ANNEALINGS.items()}
    assert found["harmonic"] == pytest.approx([1, 3 / 2, 25 / 12])
    assert found["constant"] == [1, 1, 1]
    assert found["linear"] == [1, 2, 4]
    assert found["logarithmic"] == pytest.approx([1, 1 + math.log(2), 1 + math.log(4)])


@pytest.mark.parametrize("granularity", ["channel", "layer"])
def test_a_shared_deviation_moves_by_the_mean_of_what_its_elements_would(granularity: str) -> None:
    """Over three steps of regularizer and noise, the elements tied together again after each."""
    x, moved = torch.ones(4, 2, 3, 3), {}
    for kind in ("element", granularity):
        layer = FeatureNoise((2, 3, 3), kind, 0.3)
        noise = nn.ModuleDict({"only": layer})
        optimizer = new_noise_optimizer(noise, 0.01, 0.9)
        for turn in range(3):
            layer.draws = Draws(turn, torch.arange(4))
            optimizer.zero_grad()
            torch.autograd.backward(layer(x).pow(3).mean() + regularizer(noise))
            optimizer.step()
            axes = (1, 2) if granularity == "channel" else (0, 1, 2)
            layer.sigma.data.copy_(layer.sigma.data.mean(axes, keepdim=True).expand_as(layer.sigma))
        moved[kind] = layer.sigma.detach().expand(2, 3, 3)
    assert torch.allclose(moved["element"], moved[granularity], rtol=1e-5)
    assert not torch.allclose(moved["element"], torch.full((2, 3, 3), 0.3), atol=1e-3)


def test_none_is_left_below_the_floor() -> None:
    noise = a_layer("element", -0.1, 0.04)
    lift(noise, 0.01)
    assert noise["only"].sigma.flatten().tolist() == pytest.approx([0.01, 0.04])


def test_without_a_source_every_pass_has_noise_of_its_own() -> None:
    plain, x = made(ResNet(8, 2)), images(2)
    one, other = noisy(plain), noisy(plain)
    first, second = one(x), one(x)
    assert not torch.allclose(first, second, atol=1e-3)
    assert torch.equal(other(x), first)
    assert one.passes == 2
    assert all(layer.draws is None for _, layer in stochastic_layers(one))
    ask(one, x, [0, 1])
    assert one.passes == 2
