"""Defenses: each trains a network on training data, and says how a knowing attacker would attack it."""

from __future__ import annotations

from defenses.data import Data
from defenses.defense import Defense
from defenses.feature_losses import FeatureLosses
from defenses.fit import TrainingDiverged
from defenses.inputs import INPUTS, Input
from defenses.learn2perturb import Learn2Perturb
from defenses.networks import NETWORKS, Network
from defenses.out_of_memory import TrainingOutOfMemory
from defenses.pcl import PCL
from defenses.pgd_at import PgdAT
from defenses.standard import Standard
from defenses.state import Epoch, State
from defenses.training import Training
from defenses.wnll import WNLL

_METHODS: tuple[type[Defense], ...] = (Standard, PgdAT, Learn2Perturb, PCL, WNLL, FeatureLosses)
DEFENSES: dict[str, type[Defense]] = {method.name: method for method in _METHODS}

__all__ = [
    "DEFENSES",
    "INPUTS",
    "NETWORKS",
    "PCL",
    "WNLL",
    "Data",
    "Defense",
    "Epoch",
    "FeatureLosses",
    "Input",
    "Learn2Perturb",
    "Network",
    "PgdAT",
    "Standard",
    "State",
    "Training",
    "TrainingDiverged",
    "TrainingOutOfMemory",
]
