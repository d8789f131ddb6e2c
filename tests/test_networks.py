"""Networks: the papers' parameter counts, every image size, and a description that rebuilds them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from defenses.networks import NETWORKS, ConvNet, LeNet, Mlp, Network, Normalise, ResNet, build, describe
from defenses.networks.resnet import Block


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [
        (20, 16, 269_722),
        (32, 16, 464_154),
        (44, 16, 658_586),
        (56, 16, 853_018),
        (20, 24, 605_026),
        (20, 32, 1_073_962),
        (20, 64, 4_286_026),
    ],
)
def test_resnets_have_the_parameters_of_pni_table_3(depth: int, width: int, count: int) -> None:
    assert parameters(ResNet(depth, width)(3, 32, 10)) == count


@pytest.mark.parametrize(
    ("network", "channels", "size", "count"),
    [(Mlp(), 1, 28, 469_160), (LeNet(), 1, 28, 431_080), (ConvNet(), 3, 32, 145_578)],
)
def test_deep_defense_networks_have_their_papers_parameters(
    network: Network, channels: int, size: int, count: int
) -> None:
    assert parameters(network(channels, size, 10)) == count


SIZES = [(name, size) for name in NETWORKS for size in (8, 28, 32, 64)] + [("resnet", 224)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "size"), SIZES)
def test_takes_every_size_and_every_pixel_counts(name: str, size: int, channels: int) -> None:
    """At a random start some logit depends on each pixel of the middle, through every layer."""
    settings = {"depth": 8, "width": 4} if name == "resnet" else {}
    model = build(describe(NETWORKS[name](**settings), channels, size, 7)).eval()
    x = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = model(x)
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    middle = gradient[:, :, size // 4 : -size // 4, size // 4 : -size // 4]
    assert (middle != 0).float().mean() > 0.5


@pytest.mark.parametrize("name", list(NETWORKS))
def test_normalises_first(name: str) -> None:
    """Logits of x after setting (mean, std) are those of (x - mean) / std before."""
    model = build(describe(NETWORKS[name](), 3, 8, 4)).eval()
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    before = model((x - mean[:, None, None]) / std[:, None, None])
    first = next(module for module in model.modules() if not list(module.children()))
    assert isinstance(first, Normalise)
    first.set(mean, std)
    assert torch.allclose(model(x), before, atol=1e-5)
    assert {"normalise.mean", "0.mean"} & set(model.state_dict())


def test_shortcut_keeps_every_second_pixel_between_zero_channels() -> None:
    block = Block(4, 8, 2)
    x = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    shortcut = block._shortcut(x)
    assert torch.equal(shortcut[:, 2:6], x[:, :, ::2, ::2])
    assert not shortcut[:, :2].any()
    assert not shortcut[:, 6:].any()


@pytest.mark.parametrize("network", [Mlp((30, 20)), Mlp(()), LeNet(), ConvNet(), ResNet(14, 5)])
def test_description_survives_json_and_rebuilds(network: Network) -> None:
    description = describe(network, 3, 16, 11)
    assert json.loads(json.dumps(description)) == description
    model, again = build(description, 5), build(json.loads(json.dumps(description)), 5)
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 11)


def test_build_draws_from_its_seed_and_leaves_the_global_generator() -> None:
    description = describe(ResNet(8, 4), 1, 8, 10)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(description, 3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second, other = build(description, 3), build(description, 4)
    weights = [model.get_parameter("conv1.weight") for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("depth", "nearest"), [(21, 20), (7, 8), (0, 8), (-4, 8), (24, 26), (55, 56), (110.0, 110)])
def test_resnet_refuses_a_depth_and_names_the_nearest(depth: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"^depth: must be 6n \+ 2 .*nearest {nearest}\), got {depth}$"):
        ResNet(depth)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^width: must be an integer >= 1, got 0$"):
        ResNet(20, 0)
    with pytest.raises(ValueError, match=r"^widths: must be a list of integers >= 1, got \[10, 0\]$"):
        Mlp((10, 0))


def test_unknown_network_is_answered_with_the_nearest() -> None:
    description = describe(ResNet(), 3, 32, 10) | {"name": "resnt"}
    with pytest.raises(ValueError, match=r"must be one of convnet, .*got 'resnt'; did you mean 'resnet'\?"):
        build(description)
