"""The attacks that follow a gradient: those which an expectation can be put around (`attacks/eot.py`)."""

from __future__ import annotations

from attacks.apgd import APGD
from attacks.attack import Attack
from attacks.feature_pgd import FeaturePGD
from attacks.fgsm import FGSM
from attacks.pgd import PGD

GRADIENT_ATTACKS: dict[str, type[Attack]] = {attack.name: attack for attack in (FGSM, PGD, FeaturePGD, APGD)}
