"""Agreement with foolbox, torchattacks and adversarial-library, on 500 images of MNIST (`make parity`)."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_pgd import Case
from torch import Tensor

from attacks import BIM, DDN, FGSM, FMN, MIM, PGD, CarliniWagner, DeepFool, Draws, Threat

pytestmark = pytest.mark.parity

EPS = {"linf": 0.1, "l2": 1.0}
STEPS = 10
LINF = Threat("linf", EPS["linf"])


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture(autouse=True)
def peers_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def peer(name: str) -> Any:
    """The library, or a skipped test. That of adv-lib asks for a plotter at import, which it does not need here."""
    if name == "adv_lib.attacks":
        sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    pytest.importorskip(name.partition(".")[0])
    return importlib.import_module(name)


def fooled(case: Case, adversarial: Tensor) -> Tensor:
    with torch.no_grad():
        return case.model(adversarial).argmax(1) != case.y


def by_foolbox(case: Case, attack: Any, eps: float | None) -> Tensor:
    model = peer("foolbox").PyTorchModel(case.model, bounds=(0, 1))
    found: Tensor = attack(model, case.x, case.y, epsilons=eps)[1]
    return found


def told(case: Case, ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(fooled(case, ours), fooled(case, theirs))
    assert 0.2 < fooled(case, ours).float().mean() < 0.98, "a verdict that is always the same shows nothing"


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd"])
def test_every_verdict_is_that_of_foolbox(case: Case, name: str, norm: str) -> None:
    kinds, eps = peer("foolbox").attacks, EPS[norm]
    of = {"linf": "Linf", "l2": "L2"}[norm]
    size = 2.5 * eps / STEPS
    settings = {"abs_stepsize": size, "steps": STEPS, "random_start": False}
    theirs = {
        "fgsm": lambda: kinds.FGSM() if norm == "linf" else kinds.FGM(),
        "bim": lambda: getattr(kinds, f"{of}BasicIterativeAttack")(**settings),
        "pgd": lambda: getattr(kinds, f"{of}ProjectedGradientDescentAttack")(**settings),
    }[name]()
    plain = PGD(STEPS, random_start=False, keep="last")
    ours = {"fgsm": FGSM(), "bim": BIM(STEPS, size), "pgd": plain}[name]
    told(case, ours(case.model, case.x, case.y, Threat(norm, eps), Draws(0, case.ids)), by_foolbox(case, theirs, eps))


@pytest.mark.parametrize("name", ["fgsm", "bim", "mim", "pgd"])
def test_every_verdict_is_that_of_torchattacks(case: Case, name: str) -> None:
    kinds = peer("torchattacks")
    size = LINF.eps / 4
    settings = {"eps": LINF.eps, "alpha": size, "steps": STEPS}
    theirs = {
        "fgsm": lambda: kinds.FGSM(case.model, eps=LINF.eps),
        "bim": lambda: kinds.BIM(case.model, **settings),
        "mim": lambda: kinds.MIFGSM(case.model, **settings),
        "pgd": lambda: kinds.PGD(case.model, **settings, random_start=False),
    }[name]()
    plain = PGD(STEPS, step_size=size, random_start=False, keep="last")
    ours = {"fgsm": FGSM(), "bim": BIM(STEPS, size), "mim": MIM(STEPS, step_size=size), "pgd": plain}[name]
    told(case, ours(case.model, case.x, case.y, LINF, Draws(0, case.ids)), theirs(case.x, case.y))


def distances(case: Case, attack: Any, norm: str, count: int = 500) -> Tensor:
    """Of the first images. [count]"""
    found = attack.nearest(case.model, case.x[:count], case.y[:count], norm, Draws(0, case.ids[:count]))
    distance: Tensor = found.distance
    return distance


def of_answer(case: Case, adversarial: Tensor, norm: str) -> Tensor:
    """The distances of another library's answers, infinite where they do not fool. [count]"""
    count = len(adversarial)
    with torch.no_grad():
        is_fooled = case.model(adversarial).argmax(1) != case.y[:count]
    return torch.where(is_fooled, Threat(norm, 1.0).distance(case.x[:count], adversarial), torch.inf)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_finds_the_points_of_foolbox(case: Case, norm: str) -> None:
    kinds = peer("foolbox").attacks
    theirs = kinds.LinfDeepFoolAttack() if norm == "linf" else kinds.L2DeepFoolAttack()
    ours, theirs = distances(case, DeepFool(), norm), of_answer(case, by_foolbox(case, theirs, None), norm)
    assert ours.isfinite().all()
    assert ours.median().item() == pytest.approx(theirs.median().item(), rel=0.005)
    assert ((ours - theirs).abs() <= 0.01 * theirs).float().mean() > 0.98


def test_ddn_finds_the_distances_of_adversarial_library(case: Case) -> None:
    kinds = peer("adv_lib.attacks")
    theirs = of_answer(case, kinds.ddn(case.model, case.x, case.y, steps=100, levels=None), "l2")
    ours = distances(case, DDN(steps=100), "l2")
    assert ours.isfinite().all()
    assert ours.median().item() == pytest.approx(theirs.median().item(), rel=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fmn_is_within_two_percent_of_the_best_attack(case: Case, norm: str) -> None:
    """Medians over the images: against ddn and deepfool of ours and fmn of both libraries, each by itself; and within
    three percent of the nearest that any of them finds for each image.
    """
    kinds, library = peer("foolbox").attacks, peer("adv_lib.attacks")
    ours = distances(case, FMN(), norm)
    of = {"linf": "LInf", "l2": "L2", "l1": "L1"}[norm]
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    rivals = [
        of_answer(case, by_foolbox(case, getattr(kinds, f"{of}FMNAttack")(steps=100), None), norm),
        of_answer(case, library.fmn(case.model, case.x, case.y, norm=order, steps=100), norm),
        *([distances(case, DeepFool(), norm)] if norm != "l1" else []),
        *([distances(case, DDN(), norm)] if norm == "l2" else []),
    ]
    best = torch.stack([ours, *rivals]).amin(0)
    print(norm, ours.median().item(), [rival.median().item() for rival in rivals], best.median().item())
    assert ours.isfinite().all()
    assert ours.median().item() <= 1.02 * min(rival.median().item() for rival in rivals)
    assert ours.median() <= 1.03 * best.median()


def test_carlini_wagner_fools_every_image_and_moves_pixels_at_the_walls(case: Case) -> None:
    """40 images, without a bound: what torchattacks' cannot, whose pixels of 0 and 1 never move."""
    rows = 40
    attack = CarliniWagner(steps=400, searches=6, initial_c=0.1)
    x = case.x[:rows]
    found = attack.nearest(case.model, x, case.y[:rows], "l2", Draws(0, case.ids[:rows]))
    assert found.distance.isfinite().all()
    at_wall = (x == 0) | (x == 1)
    moved = (found.adversarial - x).abs() > 1e-3
    print("at walls and moved", (moved & at_wall).sum().item() / at_wall.sum().item(), found.distance.median().item())
    assert (moved & at_wall).sum() > 0.1 * at_wall.sum()
    assert found.distance.median() <= 1.02 * distances(case, FMN(), "l2", rows).median()
    theirs = peer("torchattacks").CW(case.model, c=1, steps=20)(x[:5], case.y[:5])
    assert torch.equal(theirs[at_wall[:5]], x[:5][at_wall[:5]])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("attack", [FMN(steps=30), DDN(steps=30), DeepFool(), MIM(), BIM()])
def test_verdicts_do_not_depend_on_batch_and_order(case: Case, attack: FMN, norm: str) -> None:
    if norm not in getattr(attack, "norms", ("linf", "l2", "l1")):
        pytest.skip(f"{attack.name} is not for {norm}")
    threat = Threat(norm, {"linf": 0.08, "l2": 1.2, "l1": 8.0}[norm])
    whole = case.fooled(attack, threat)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(case.fooled(attack, threat, batch=7), whole)
    assert torch.equal(case.fooled(attack, threat, batch=100), whole)
    assert torch.equal(case.in_order(attack, threat, order, 64), whole)
    assert 0.2 < whole.float().mean() < 0.98, "a verdict that is always the same shows nothing"
