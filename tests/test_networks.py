"""Networks: the papers' parameter counts, every image size, and a description that rebuilds them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import orchestrator.contracts.network as contract
from defenses.networks import (
    NETWORKS,
    BottleneckResNet,
    ConvNet,
    FourStageResNet,
    LeNet,
    Mlp,
    Network,
    Nin,
    PreactResNet,
    ResNet,
    SmallCnn,
    TorchvisionModel,
    WideResNet,
    build,
    describe,
)
from defenses.networks.preactivation_blocks import PreactBasic, PreactBottleneck
from defenses.networks.residual_blocks import BasicBlock, Bottleneck
from defenses.networks.resnet import Block
from defenses.networks.torchvision_models import MODELS as TORCHVISION
from orchestrator.contracts.network import CLAIMS
from orchestrator.contracts.settings import can_be_written_in_a_spec, is_a_frozen_dataclass_under_its_own_name

SMALL: dict[str, dict[str, Any]] = {  # settings at which the large families are quick
    "resnet": {"depth": 8, "width": 4},
    "bottleneck_resnet": {"depth": 11, "width": 2, "hidden": 9},
    "four_stage_resnet": {"depth": 18, "width": 4},
    "preact_resnet": {"depth": 18, "width": 4},
    "wide_resnet": {"depth": 10, "widen": 1, "dropout": 0.1},
    "torchvision": {"model": "shufflenet_v2_x0_5"},
}


def small(name: str) -> Network:
    return NETWORKS[name](**SMALL.get(name, {}))


def shapes(network: Network, channels: int, size: int, classes: int) -> nn.Module:
    """The network without numbers, which takes no time and no memory."""
    with torch.device("meta"):
        return network(channels, size, classes)


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


@pytest.mark.parametrize(
    ("network", "classes", "count"),
    [
        (FourStageResNet(18), 10, 11_173_962),  # plain weights of Learn2Perturb's ResNet-V2(18): PNI, table 3
        (FourStageResNet(50), 10, 23_520_842),  # jvlmdr/flax-cifar, ResNetV1-50
        (PreactResNet(18), 10, 11_172_170),  # the same table, ResNetV2-18
        (PreactResNet(50), 10, 23_513_162),  # the same table, ResNetV2-50
        (BottleneckResNet(164, hidden=1024), 10, 1_975_002),  # PCL's released network, counted by running its code
        (BottleneckResNet(164), 10, 1_704_154),  # osmr/imgclsmob, CIFAR-10, ResNet-164(BN)
        (BottleneckResNet(272), 10, 2_816_986),  # the same table, ResNet-272(BN)
        (WideResNet(28, 10), 10, 36_479_194),  # the same table, WRN-28-10; 36.5 M in table 4 of the paper
        (WideResNet(28, 10), 100, 36_536_884),  # the same source, CIFAR-100
        (WideResNet(16, 10), 10, 17_116_634),  # the same table
        (WideResNet(40, 8), 10, 35_748_314),  # the same table
        (WideResNet(28, 2), 10, 1_467_610),  # jvlmdr/flax-cifar
        (WideResNet(34, 10), 10, 46_160_474),  # counted by several who train against attacks
        (Nin(), 10, 966_986),  # osmr/imgclsmob, NIN
    ],
)
def test_cifar_networks_have_the_published_parameters(network: Network, classes: int, count: int) -> None:
    assert parameters(shapes(network, 3, 32, classes)) == count


def test_a_preactivated_resnet_18_lacks_some_normalisations() -> None:
    """ResNet-18 normalises its stem, where the other normalises before pooling, all outputs of first convolutions,
    where the other normalises their inputs, and three projections. Each has a weight and a bias per channel.
    """
    stem_and_last = 2 * 64 - 2 * 512
    incoming = 2 * ((128 - 64) + (256 - 128) + (512 - 256))
    projections = 2 * (128 + 256 + 512)
    after, before = (parameters(shapes(network, 3, 32, 10)) for network in (FourStageResNet(18), PreactResNet(18)))
    assert after - before == stem_and_last + incoming + projections


def test_resnet_110_has_the_1_7_million_of_its_paper() -> None:
    """He et al. 2016, table 6. Depth 110 is 54 blocks: 18 per stage of 2 convolutions, each with a normalisation."""
    width, blocks = 16, 18
    stages, wide = 0, width
    for outputs in (width, 2 * width, 4 * width):
        first = 9 * wide * outputs + 9 * outputs * outputs + 4 * outputs
        stages += first + (blocks - 1) * (2 * 9 * outputs * outputs + 4 * outputs)
        wide = outputs
    by_hand = 27 * width + 2 * width + stages + 10 * (4 * width + 1)
    assert parameters(shapes(ResNet(110), 3, 32, 10)) == by_hand == 1_727_962


def test_the_small_cnn_has_its_parameters_by_hand() -> None:
    """28 pixels become 26, 24, 12, 10, 8, 4; weights and biases of four convolutions and three layers."""
    convolutions = 320 + 9_248 + 18_496 + 36_928
    layers = (64 * 4 * 4 + 1) * 200 + 201 * 200 + 201 * 10
    assert parameters(SmallCnn()(1, 28, 10)) == convolutions + layers == 312_202
    assert parameters(SmallCnn((200,))(1, 28, 10)) == convolutions + layers - 201 * 200


@pytest.mark.parametrize("model", ["resnet18", "wide_resnet50_2", "alexnet", "vit_b_16", "maxvit_t", "densenet121"])
def test_torchvision_networks_have_the_parameters_it_publishes(model: str) -> None:
    """Those told beside its weights, of which none are fetched."""
    from torchvision.models import get_model_weights

    published = get_model_weights(model).DEFAULT.meta["num_params"]
    assert parameters(shapes(TorchvisionModel(model), 3, 224, 1000)) == published


def test_every_classifier_of_torchvision_is_known_and_no_other() -> None:
    from torchvision import models

    known = set(models.list_models(module=models))
    assert set(TORCHVISION) == known


@pytest.mark.parametrize("model", ["googlenet", "densenet121", "squeezenet1_1", "vit_b_32", "swin_t", "mnasnet0_5"])
def test_torchvision_networks_give_logits_for_grey_images_in_training_too(model: str) -> None:
    made = shapes(TorchvisionModel(model), 1, 64, 7).train()
    assert made(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 7)
    assert not any(getattr(module, "inplace", False) for module in made.modules())


def test_torchvision_says_what_it_does_not_take() -> None:
    with pytest.raises(ValueError, match=r"^model: must be one of alexnet, .*got 'resnet19'; did you mean 'resnet1"):
        TorchvisionModel("resnet19")
    with pytest.raises(ValueError, match=r"^model: resnet18 takes images of 1 or 3 channels, got 4$"):
        TorchvisionModel()(4, 32, 10)
    with pytest.raises(ValueError, match=r"^model: vit_h_14 takes images of a multiple of 14 pixels, got 32$"):
        TorchvisionModel("vit_h_14")(3, 32, 10)


def test_a_grey_image_is_shown_to_a_torchvision_network_as_a_coloured_one() -> None:
    grey, coloured = (build(describe(small("torchvision"), channels, 32, 5), 0).eval() for channels in (1, 3))
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(grey(x), coloured(x.repeat(1, 3, 1, 1)))


def test_naming_a_network_or_a_dataset_does_not_import_torchvision() -> None:
    """It takes seconds, in every worker."""
    look = """
import sys
from defenses import NETWORKS
from orchestrator.datasets import DATASETS
made = [NETWORKS["torchvision"](model="vit_b_16"), *(kind() for kind in DATASETS.values())]
print("torchvision" in sys.modules, len(made) > 5)
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_parameter_gets_a_gradient_and_the_image_is_left_alone(name: str) -> None:
    contract.every_parameter_gets_a_gradient_and_the_image_is_left_alone(small(name))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_layout_in_memory_changes_no_logit(name: str) -> None:
    contract.the_layout_in_memory_changes_no_logit(small(name))


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_shapes_are_known_without_numbers(name: str, channels: int, size: int) -> None:
    contract.shapes_are_known_without_numbers(NETWORKS[name](), channels, size)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_starts_at_a_loss_near_that_of_a_guess(name: str) -> None:
    contract.starts_at_a_loss_near_that_of_a_guess(small(name))


@pytest.mark.parametrize(
    ("network", "maps"),
    [
        (ResNet(8, 16), [(16, 32), (32, 16), (64, 8)]),
        (BottleneckResNet(11, 16), [(64, 32), (128, 16), (256, 8)]),
        (WideResNet(10, 2), [(32, 32), (64, 16), (128, 8)]),
        (FourStageResNet(18, 64), [(64, 32), (128, 16), (256, 8), (512, 4)]),
        (PreactResNet(18, 64), [(64, 32), (128, 16), (256, 8), (512, 4)]),
        (FourStageResNet(50, 64), [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
        (PreactResNet(50, 64), [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
    ],
)
def test_each_stage_halves_the_map_and_doubles_the_channels(network: Network, maps: list[tuple[int, int]]) -> None:
    """Channels and size after each stage, for 32x32 images: the tables of the papers."""
    made, seen = shapes(network, 3, 32, 10), []
    for place in range(len(maps)):
        made.get_submodule(f"stage{place + 1}").register_forward_hook(
            lambda module, given, out: seen.append((out.shape[1], out.shape[2]))
        )
    made(torch.empty(2, 3, 32, 32, device="meta"))
    assert seen == maps


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_block_without_branch_is_a_rectified_shortcut(block: Any) -> None:
    made = block(4 * block.expansion, 4, 1).eval()
    nn.init.zeros_((made.bn3 if block is Bottleneck else made.bn2).weight)
    x = torch.randn(2, 4 * block.expansion, 6, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(made(x), x.relu())
    assert block(5, 4, 2)(torch.zeros(2, 5, 7, 7)).shape == (2, 4 * block.expansion, 4, 4)


@pytest.mark.parametrize("block", [PreactBasic, PreactBottleneck])
def test_a_preactivated_block_without_branch_is_the_identity(block: Any) -> None:
    made = block(4 * block.expansion, 4, 1).eval()
    nn.init.zeros_((made.conv3 if block is PreactBottleneck else made.conv2).weight)
    x = torch.randn(2, 4 * block.expansion, 6, 6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(made(x), x)


@pytest.mark.parametrize("block", [PreactBasic, PreactBottleneck])
def test_a_preactivated_block_projects_the_activated_input(block: Any) -> None:
    made = block(5, 4, 2).eval()
    nn.init.zeros_((made.conv3 if block is PreactBottleneck else made.conv2).weight)
    x = torch.randn(2, 5, 7, 7, generator=torch.Generator().manual_seed(2))
    assert torch.equal(made(x), made.shortcut(made.bn1(x).relu()))
    assert made(x).shape == (2, 4 * block.expansion, 4, 4)


SIZES = [(name, size) for name in NETWORKS for size in (8, 28, 32, 64)] + [("resnet", 224)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "size"), SIZES)
def test_takes_every_size_and_every_pixel_counts(name: str, size: int, channels: int) -> None:
    contract.takes_every_size_and_every_pixel_counts(small(name), channels, size)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_normalises_first(name: str) -> None:
    contract.normalises_first(small(name))
    model = build(describe(small(name), 3, 8, 4))
    assert {"normalise.mean", "0.mean"} & set(model.state_dict())


def test_shortcut_keeps_every_second_pixel_between_zero_channels() -> None:
    block = Block(4, 8, 2)
    x = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    shortcut = block._shortcut(x)
    assert torch.equal(shortcut[:, 2:6], x[:, :, ::2, ::2])
    assert not shortcut[:, :2].any()
    assert not shortcut[:, 6:].any()


@pytest.mark.parametrize(
    "network", [Mlp((30, 20)), Mlp(()), LeNet(), SmallCnn((30,), 0.2), *map(small, SMALL), ConvNet(), ResNet(14, 5)]
)
def test_description_survives_json_and_rebuilds(network: Network) -> None:
    contract.description_survives_json_and_rebuilds(network)
    model = build(describe(network, 3, 16, 11), 5)
    assert model.eval()(torch.rand(2, 3, 16, 16)).shape == (2, 11)


def test_every_claim_of_the_contract_is_held_here() -> None:
    source = inspect.getsource(sys.modules[__name__])
    assert not [claim.check.__name__ for claim in CLAIMS if f"contract.{claim.check.__name__}(" not in source]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_is_a_frozen_dataclass_under_its_own_name(name: str) -> None:
    is_a_frozen_dataclass_under_its_own_name(small(name), name)
    can_be_written_in_a_spec(small(name), NETWORKS)


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


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (BottleneckResNet, {"depth": 108}, r"depth: must be 9n \+ 2 \(11, 20, 29, ...; nearest 110\), got 108"),
        (BottleneckResNet, {"depth": 2009}, "depth: must be at most 2000, got 2009"),
        (BottleneckResNet, {"hidden": -1}, "hidden: must be an integer >= 0, got -1"),
        (BottleneckResNet, {"width": 0}, "width: must be an integer >= 1, got 0"),
        (FourStageResNet, {"depth": 20}, "depth: must be one of 18, 34, 50, 101, 152, got 20"),
        (FourStageResNet, {"width": 0}, "width: must be an integer >= 1, got 0"),
        (PreactResNet, {"depth": 110}, "depth: must be one of 18, 34, 50, 101, 152, got 110"),
        (WideResNet, {"depth": 30}, r"depth: must be 6n \+ 4 \(10, 16, 22, ...; nearest 28\), got 30"),
        (WideResNet, {"depth": 2002}, "depth: must be at most 2000, got 2002"),
        (WideResNet, {"widen": 0}, "widen: must be an integer >= 1, got 0"),
        (WideResNet, {"dropout": 1.0}, r"dropout: must be in \[0, 1\), got 1.0"),
        (Nin, {"dropout": -0.1}, r"dropout: must be in \[0, 1\), got -0.1"),
        (SmallCnn, {"dropout": 1.0}, r"dropout: must be in \[0, 1\), got 1.0"),
        (SmallCnn, {"hidden": [200, 0]}, r"hidden: must be a list of integers >= 1, got \[200, 0\]"),
    ],
)
def test_each_family_says_what_it_allows(family: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        family(**settings)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^width: must be an integer >= 1, got 0$"):
        ResNet(20, 0)
    with pytest.raises(ValueError, match=r"^widths: must be a list of integers >= 1, got \[10, 0\]$"):
        Mlp((10, 0))


def test_unknown_network_is_answered_with_the_nearest() -> None:
    description = describe(ResNet(), 3, 32, 10) | {"name": "resnt"}
    with pytest.raises(ValueError, match=r"must be one of bottleneck_resnet, .*got 'resnt'; did you mean 'resnet'\?"):
        build(description)
