"""Perturbs images so that a classifier errs: threats, losses, attacks. Tensors and draws in, tensors out."""

from attacks.apgd import APGD
from attacks.attack import Attack
from attacks.cascades import CASCADES
from attacks.draws import Draws
from attacks.feature_pgd import FeaturePGD
from attacks.fgsm import FGSM
from attacks.losses import LOSSES
from attacks.noise import Noise
from attacks.pgd import PGD
from attacks.square import Square
from attacks.surface import Surface
from attacks.threat import Threat

ATTACKS: dict[str, type[Attack]] = {attack.name: attack for attack in (Noise, FGSM, PGD, FeaturePGD, APGD, Square)}

__all__ = [
    "APGD",
    "ATTACKS",
    "CASCADES",
    "FGSM",
    "LOSSES",
    "PGD",
    "Attack",
    "Draws",
    "FeaturePGD",
    "Noise",
    "Square",
    "Surface",
    "Threat",
]
