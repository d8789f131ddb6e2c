"""Hidden features: found in every network of the table and in others' networks, read without a trace."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from defenses.features import Place, named, reading, stages, vectors, widths
from defenses.networks import NETWORKS, build, describe

LENGTHS = {"mlp": [500, 150], "lenet": [20, 800, 500], "convnet": [32, 32, 64, 64], "resnet": [16, 16, 32, 64]}


def network(name: str) -> nn.Module:
    return build(describe(NETWORKS[name](), 1, 28, 10)).eval()


def images(count: int = 3, channels: int = 1, size: int = 28) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(LENGTHS))
def test_stages_are_what_enters_each_layer_after_the_first(name: str) -> None:
    model = network(name)
    assert widths(model, stages(model), images(1)) == LENGTHS[name]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_of_the_table_has_stages_and_the_last_one_decides_the_logits(name: str) -> None:
    """What enters the last layer, through that layer again, is what the network says."""
    model, x = network(name), images()
    place = stages(model)[-1]
    assert place.enters
    with reading(model, [place]) as features:
        logits = model(x)
    layer = dict(model.named_modules())[place.module]
    found = layer(features[place])
    if name == "nin":  # its last layer is a convolution, of which an average makes logits
        found = found.mean((2, 3))
    torch.testing.assert_close(found.flatten(1), logits)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_reading_changes_nothing_and_leaves_no_hook(name: str) -> None:
    model, x = network(name), images()
    before = model(x)
    with reading(model, stages(model)) as features:
        assert torch.equal(model(x), before)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    kept = dict(features)
    model(images(5))
    assert all(features[place] is kept[place] for place in kept)


def test_hooks_go_also_when_the_model_breaks() -> None:
    model = network("lenet")
    with pytest.raises(RuntimeError), reading(model, stages(model)):
        model(images(channels=3))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def test_a_loss_on_features_trains_what_lies_before_them_and_nothing_behind() -> None:
    model = network("lenet")
    first, *_, last = stages(model)
    with reading(model, [first, last]) as features:
        model(images())
    vectors(features[first]).square().sum().backward()
    has_gradient = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert has_gradient == ["2.weight", "2.bias"]


def test_vectors_average_maps_and_leave_rows_alone() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert vectors(maps).tolist() == [[3.0, 1.0]]
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(vectors(rows), rows)
    assert vectors(rows.bfloat16()).dtype == torch.float32


def test_torchvisions_networks_have_stages_too() -> None:
    model = torchvision.models.resnet18(num_classes=4)
    assert [place.module for place in stages(model)] == ["layer1", "layer2", "layer3", "layer4", "fc"]
    assert widths(model, stages(model), images(1, 3, 32)) == [64, 64, 128, 256, 512]
    assert all(module.training for module in model.modules())


def test_a_wrapped_network_is_unwrapped_and_a_bare_layer_gives_its_logits() -> None:
    wrapped = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.ReLU(), nn.Linear(6, 3)))
    assert stages(wrapped) == [Place("0.3", enters=True)]
    bare = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    assert stages(bare) == [Place("1")]
    with reading(bare, stages(bare)) as features:
        logits = bare(images())
    assert features[Place("1")] is logits
    assert stages(nn.Flatten()) == []


def test_named_modules_give_what_leaves_them() -> None:
    model = network("resnet")
    places = named(model, ["stage2", "pool"])
    assert widths(model, places, images(1)) == [32, 64]
    with reading(model, places) as features:
        model(images())
    assert features[places[0]].shape == (3, 32, 14, 14)


def test_a_name_the_network_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^layers: must be modules .*stage3.*; got 'stage9' \(did you mean stage\d\?"):
        named(network("resnet"), ["stage1", "stage9"])


class Odd(nn.Module):
    """One child is never called, one gives no tensor, one has no row per image."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.pair, self.total = nn.Linear(1, 1), Pair(), Total()

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(x)[0].flatten(1) + self.total(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Total(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


@pytest.mark.parametrize(("layer", "seen"), [("idle", "NoneType"), ("pair", "tuple"), ("total", r"\[\]")])
def test_a_module_that_gives_no_features_is_refused(layer: str, seen: str) -> None:
    model = Odd()
    with pytest.raises(ValueError, match=rf"^layers: must give features \[B, ...\], {layer} gave {seen} for 1 image$"):
        widths(model, named(model, [layer]), images(1))
