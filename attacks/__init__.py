"""Perturbs images so that a classifier errs: threats, losses, attacks. Tensors and draws in, tensors out."""

from attacks.attack import Attack
from attacks.bim import BIM
from attacks.bpda import BPDA
from attacks.carlini_wagner import CarliniWagner
from attacks.cascades import CASCADES
from attacks.ddn import DDN
from attacks.deepfool import DeepFool
from attacks.draws import Draws
from attacks.eot import EOT
from attacks.feature_pgd import FeaturePGD
from attacks.fgsm import FGSM
from attacks.fmn import FMN
from attacks.gradient_attacks import GRADIENT_ATTACKS
from attacks.losses import LOSSES
from attacks.mim import MIM
from attacks.noise import Noise
from attacks.pgd import PGD
from attacks.rfgsm import RFGSM
from attacks.surface import Surface
from attacks.threat import Threat

ATTACKS: dict[str, type[Attack]] = {Noise.name: Noise, **GRADIENT_ATTACKS, EOT.name: EOT}

__all__ = [
    "ATTACKS",
    "BIM",
    "BPDA",
    "CASCADES",
    "DDN",
    "EOT",
    "FGSM",
    "FMN",
    "LOSSES",
    "MIM",
    "PGD",
    "RFGSM",
    "Attack",
    "CarliniWagner",
    "DeepFool",
    "Draws",
    "FeaturePGD",
    "Noise",
    "Surface",
    "Threat",
]
