"""Perturbs images so that a classifier errs: threats, losses, attacks. Tensors and draws in, tensors out."""

from attacks.apgd import APGD
from attacks.attack import Attack
from attacks.bim import BIM
from attacks.bpda import BPDA
from attacks.carlini_wagner import CarliniWagner
from attacks.cascades import CASCADES
from attacks.ddn import DDN
from attacks.deepfool import DeepFool
from attacks.draws import Draws
from attacks.eot import EOT
from attacks.fab import FAB
from attacks.feature_pgd import FeaturePGD
from attacks.fgsm import FGSM
from attacks.fmn import FMN
from attacks.gradient_attacks import GRADIENT_ATTACKS
from attacks.losses import LOSSES
from attacks.mim import MIM
from attacks.noise import Noise
from attacks.pgd import PGD
from attacks.rfgsm import RFGSM
from attacks.square import Square
from attacks.surface import Surface
from attacks.threat import Threat

_OTHERS: tuple[type[Attack], ...] = (EOT, FAB, Square)
ATTACKS: dict[str, type[Attack]] = {Noise.name: Noise, **GRADIENT_ATTACKS, **{other.name: other for other in _OTHERS}}

__all__ = [
    "APGD",
    "ATTACKS",
    "BIM",
    "BPDA",
    "CASCADES",
    "DDN",
    "EOT",
    "FAB",
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
    "Square",
    "Surface",
    "Threat",
]
