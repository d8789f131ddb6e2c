"""fab, square and the whole of autoattack beside the code of their authors, as pyautoattack packs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from digit_classifier import digit_case
from torch import Tensor

from attacks import FAB, Attack, Draws, Square, Threat
from attacks.threat import NORMS
from orchestrator import evaluate_robustness

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("pyautoattack")

EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
N = 100
SEEDS = range(5)
NORM = pytest.mark.parametrize("norm", NORMS)


def accuracy(adversarial: Tensor) -> float:
    case = digit_case()
    return (case.model(adversarial).argmax(1) == case.y[: len(adversarial)]).float().mean().item()


def ours(attack: Attack, threat: Threat) -> Tensor:
    """The robust accuracy at each seed."""
    case = digit_case()
    x, y, ids = case.x[:N], case.y[:N], case.ids[:N]
    return torch.tensor([accuracy(attack(case.model, x, y, threat, Draws(seed, ids))) for seed in SEEDS])


def theirs(build: Callable[[int], Any]) -> Tensor:
    case = digit_case()
    return torch.tensor([accuracy(build(seed).perturb(case.x[:N], case.y[:N])) for seed in SEEDS])


def assert_no_weaker(found: Tensor, official: Tensor) -> None:
    error = max((official.std() / len(official) ** 0.5).item(), 0.5 / N)
    assert found.mean() <= official.mean() + 2 * error, f"{found.tolist()} against {official.tolist()}"


@NORM
def test_square_is_no_weaker_than_the_official_one_over_five_seeds(norm: str) -> None:
    from pyautoattack.square import SquareAttack

    threat = Threat(norm, EPS[norm])
    official = theirs(
        lambda seed: SquareAttack(
            digit_case().model, norm=norm.capitalize(), n_queries=600, eps=threat.eps, p_init=0.8, n_restarts=1,
            seed=seed, device="cpu", resc_schedule=False,
        )
    )  # fmt: skip
    assert official.mean() < 0.95, "shows nothing"
    assert_no_weaker(ours(Square(queries=600), threat), official)


@NORM
@pytest.mark.parametrize("targets", [0, 9])
def test_fab_is_no_weaker_than_the_official_one_over_five_seeds(norm: str, targets: int) -> None:
    from pyautoattack.fab_pt import FABAttack_PT

    threat = Threat(norm, EPS[norm])

    def build(seed: int) -> Any:
        attack = FABAttack_PT(
            digit_case().model, norm=norm.capitalize(), n_iter=30, eps=threat.eps, n_restarts=2, seed=seed,
            device="cpu", targeted=targets > 0,
        )  # fmt: skip
        attack.n_target_classes = targets
        return attack

    official = theirs(build)
    assert 0.05 < official.mean() < 0.95, "shows nothing"
    assert_no_weaker(ours(FAB(steps=30, restarts=2, targets=targets), threat), official)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_autoattack_leaves_no_more_than_the_official_one(norm: str) -> None:
    from pyautoattack import AutoAttack

    case, threat = digit_case(), Threat(norm, EPS[norm])
    official = AutoAttack(case.model, norm=norm.capitalize(), eps=threat.eps, device="cpu", seed=0)
    left = accuracy(official.run_standard_evaluation(case.x, case.y, batch_size=300)[0])
    result = evaluate_robustness(case.model, case.x, case.y, threat=threat, attacks="autoattack")
    assert 0.1 < left < 0.95, "shows nothing"
    assert result.robust_accuracy <= left + 0.001
