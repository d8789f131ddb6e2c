"""Networks by family, and the table from which a spec names them."""

from __future__ import annotations

from defenses.networks.convnet import ConvNet
from defenses.networks.lenet import LeNet
from defenses.networks.mlp import Mlp
from defenses.networks.normalise import Normalise
from defenses.networks.registry import NETWORKS, Description, Network, build, describe
from defenses.networks.resnet import ResNet

_FAMILIES: tuple[type[Network], ...] = (Mlp, LeNet, ConvNet, ResNet)
NETWORKS.update({family.name: family for family in _FAMILIES})

__all__ = ["NETWORKS", "ConvNet", "Description", "LeNet", "Mlp", "Network", "Normalise", "ResNet", "build", "describe"]
