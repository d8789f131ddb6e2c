"""Networks by family, and the table from which a spec names them."""

from __future__ import annotations

from defenses.networks.bottleneck_resnet import BottleneckResNet
from defenses.networks.convnet import ConvNet
from defenses.networks.four_stage_resnet import FourStageResNet
from defenses.networks.lenet import LeNet
from defenses.networks.mlp import Mlp
from defenses.networks.nin import Nin
from defenses.networks.normalise import Normalise
from defenses.networks.preact_resnet import PreactResNet
from defenses.networks.registry import NETWORKS, Description, Network, build, describe
from defenses.networks.resnet import ResNet
from defenses.networks.small_cnn import SmallCnn
from defenses.networks.torchvision_models import TorchvisionModel
from defenses.networks.wide_resnet import WideResNet

_FAMILIES: tuple[type[Network], ...] = (
    *(Mlp, LeNet, SmallCnn, ConvNet, Nin),
    *(ResNet, BottleneckResNet, FourStageResNet, PreactResNet, WideResNet, TorchvisionModel),
)
NETWORKS.update({family.name: family for family in _FAMILIES})

__all__ = [
    "NETWORKS",
    "BottleneckResNet",
    "ConvNet",
    "Description",
    "FourStageResNet",
    "LeNet",
    "Mlp",
    "Network",
    "Nin",
    "Normalise",
    "PreactResNet",
    "ResNet",
    "SmallCnn",
    "TorchvisionModel",
    "WideResNet",
    "build",
    "describe",
]
