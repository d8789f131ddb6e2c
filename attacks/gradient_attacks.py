"""The attacks that follow a gradient: those which an expectation can be put around (`attacks/eot.py`)."""

from __future__ import annotations

from attacks.apgd import APGD
from attacks.attack import Attack
from attacks.bim import BIM
from attacks.carlini_wagner import CarliniWagner
from attacks.ddn import DDN
from attacks.deepfool import DeepFool
from attacks.feature_pgd import FeaturePGD
from attacks.fgsm import FGSM
from attacks.fmn import FMN
from attacks.mim import MIM
from attacks.pgd import PGD
from attacks.rfgsm import RFGSM

GRADIENT_ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack for attack in (FGSM, RFGSM, BIM, MIM, PGD, FeaturePGD, APGD, DeepFool, CarliniWagner, DDN, FMN)
}
