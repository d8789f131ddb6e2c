"""APGD beside the code of its authors, as pyautoattack packs it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from digit_classifier import digit_case
from torch import Tensor, nn

from attacks import APGD, Draws, Threat
from attacks.adaptive_ascent import ascend
from attacks.losses import LOSSES, Loss
from attacks.queries import querying
from attacks.starts import surface_point
from attacks.survivors import Survivors
from attacks.targets import aimed, likeliest_targets, targeted_dlr

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
official = pytest.importorskip("pyautoattack.autopgd_base")

EPS = {"linf": 0.1, "l2": 0.5, "l1": 4.0}
KINDS = ["cross_entropy", "dlr", "targeted"]


class Recorder(nn.Module):
    """Keeps all images it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


def official_run(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, kind: str, start: Tensor) -> Tensor:
    """Which examples it fools in one run of 100 steps from `start`. -> bool [B]"""
    short = {"cross_entropy": "ce", "dlr": "dlr", "targeted": "dlr-targeted"}[kind]
    build = official.APGDAttack_targeted if kind == "targeted" else official.APGDAttack
    settings = {"loss": short} if kind != "targeted" else {}
    attack = build(
        model,
        n_iter=100,
        norm=threat.norm.capitalize(),
        eps=threat.eps,
        seed=0,
        device="cpu",
        verbose=False,
        **settings,
    )
    attack.init_hyperparam(x)
    if kind == "targeted":
        attack.loss, attack.y_target = short, likeliest_targets(model(x), y, 1)[:, 0]
    return attack.attack_single_run(x, y, x_init=start)[1] == 0


def our_run(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, kind: str, start: Tensor) -> Tensor:
    with querying(model) as queries:
        survivors = Survivors(queries, x, y, Draws(0, torch.arange(len(x))))
        aim, loss = aim_and_loss(model, x, y, kind)
        ascend(queries, survivors, aim, loss, start, threat, steps=100)
        return survivors.worst().is_fooled


def aim_and_loss(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> tuple[Tensor, Loss]:
    if kind == "targeted":
        return aimed(y, likeliest_targets(model(x), y, 1)[:, 0]), targeted_dlr
    return y, LOSSES[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_from_a_given_start_apgd_follows_the_official_path(norm: str, kind: str) -> None:
    """On the examples that neither fools: the loss is the same at each of 101 points. So are the verdicts on all."""
    case, threat = digit_case(), Threat(norm, EPS[norm])
    start = surface_point(case.x, threat, Draws(3, case.ids))
    fooled = official_run(case.model, case.x, case.y, threat, kind, start)
    assert torch.equal(our_run(case.model, case.x, case.y, threat, kind, start), fooled)
    assert 0.1 < fooled.float().mean() < 0.9, "shows nothing"
    x, y, start = case.x[~fooled], case.y[~fooled], start[~fooled]
    curves = [losses_of(run, x, y, threat, kind, start) for run in (official_run, our_run)]  # [points, B]
    assert len(curves[1]) == 101
    theirs, ours = curves[0][:101], curves[1]
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.98, "more than roundings that a kink has widened"
    torch.testing.assert_close(ours.mean(1), theirs.mean(1), rtol=0, atol=3e-5)


def losses_of(run: Callable[..., Tensor], x: Tensor, y: Tensor, threat: Threat, kind: str, start: Tensor) -> Tensor:
    recorder = Recorder(digit_case().model)
    aim, loss = aim_and_loss(digit_case().model, x, y, kind)
    run(recorder, x, y, threat, kind, start)
    points = [seen for seen in recorder.seen if not torch.equal(seen, x)]  # the targets are chosen at the clean images
    return torch.stack([loss(digit_case().model(point), aim) for point in points])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_as_many_are_fooled_as_by_the_official_attack_over_five_seeds(norm: str) -> None:
    case, threat = digit_case(), Threat(norm, EPS[norm])
    ours, theirs = [], []
    for seed in range(5):
        adversarial = APGD()(case.model, case.x, case.y, threat, Draws(seed, case.ids))
        ours.append(accuracy(adversarial))
        attack = official.APGDAttack(
            case.model, n_iter=100, norm=norm.capitalize(), eps=threat.eps, seed=seed, device="cpu", loss="ce",
            use_largereps=norm == "l1", n_restarts=1,
        )  # fmt: skip
        theirs.append(accuracy(attack.perturb(case.x, case.y)))
    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    print(norm, ours.tolist(), theirs.tolist())
    error = max((theirs.std() / 5**0.5).item(), 1 / len(case.x))
    assert ours.mean() <= theirs.mean() + 2 * error


def accuracy(adversarial: Tensor) -> float:
    case = digit_case()
    return (case.model(adversarial).argmax(1) == case.y).float().mean().item()
