"""Claims about the key `adversarial`: which images are attacked, how far, and that nothing else changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from test_defenses_contract import COUNT, THREAT, digits, equal, pictures, train
from test_out_of_memory import Narrow, plugin
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.fgsm import FGSM
from attacks.pgd import PGD
from attacks.threat import Threat
from defenses import DEFENSES, PCL, Learn2Perturb, PgdAT, Standard, Training
from defenses.adversarial import Adversarial
from defenses.attacked import on_attacked
from defenses.fit import Batch
from defenses.networks import Mlp
from defenses.state import tensors

WIDE = Threat("linf", 0.3)
PEACEFUL = [name for name, kind in DEFENSES.items() if not getattr(kind, "attacks_itself", False)]


def linear() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))
    return model


def batch(adversarial: Adversarial, number: int = 0, epoch: int = 0, rows: int = 6) -> Batch:
    draws = Draws(0, torch.arange(rows)).fork("epoch", epoch)
    x = torch.full((rows, 1, 8, 8), 0.5)
    return Batch(x, torch.arange(rows) % 3, draws, epoch, number, adversarial.chosen(draws))


def seen(adversarial: Adversarial, given: Batch, threat: Threat | None = WIDE) -> Tensor:
    """The images that a loss is handed."""
    handed: list[Tensor] = []

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        handed.append(batch.x)
        return F.cross_entropy(model(batch.x), batch.y)

    on_attacked(loss, adversarial, threat)(linear(), given)
    return handed[0]


@pytest.mark.parametrize(("share", "rows", "attacked"), [(0.5, 20, 10), (0.5, 21, 10), (0.25, 20, 5), (0.1, 2, 0)])
def test_a_share_of_each_batch_is_attacked_and_the_rest_is_left_alone(share: float, rows: int, attacked: int) -> None:
    """FGSM moves each pixel by eps: an image is moved by 0.3 or not at all."""
    adversarial = Adversarial(FGSM(), share)
    given = batch(adversarial, rows=rows)
    moved = WIDE.distance(given.x, seen(adversarial, given))
    assert sorted(moved.tolist()) == pytest.approx([0.0] * (rows - attacked) + [0.3] * attacked)
    assert given.is_attacked is not None
    assert torch.equal(moved > 0, given.is_attacked)


def test_which_images_are_attacked_is_drawn_anew_in_each_epoch_and_keyed_by_example() -> None:
    adversarial = Adversarial(FGSM(), 0.5)
    draws = [Draws(0, torch.arange(40)).fork("epoch", epoch) for epoch in range(2)]
    first, second = (adversarial.chosen(each) for each in draws)
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = adversarial.chosen(draws[0].select(order))
    assert shuffled is not None
    assert torch.equal(shuffled, first[order])


def test_all_of_a_batch_is_adversarial_training_as_pgd_at_does_it() -> None:
    """The two by hand: the same loss in one batch at a rate of ~0, without random starts."""
    training = Training(epochs=1, batch_size=COUNT, lr=1e-30, threat=WIDE)
    attack = PGD(4, random_start=False, keep="last")
    (ours,) = train(
        Standard(), pictures(), dataclasses.replace(training, adversarial=Adversarial(attack)), network=Mlp((30,))
    )
    (theirs,) = train(PgdAT(steps=4, random_start=False), pictures(), training, network=Mlp((30,)))
    (clean,) = train(Standard(), pictures(), training, network=Mlp((30,)))
    assert ours.loss == theirs.loss > clean.loss + 0.1


def test_half_attacked_is_the_mean_over_both_halves_written_out() -> None:
    adversarial = Adversarial(PGD(3, keep="last"), share=0.5, eps=0.1)
    training = Training(epochs=1, batch_size=COUNT, lr=1e-30, adversarial=adversarial)
    data, draws = pictures(), Draws(0, torch.arange(COUNT))
    (epoch,) = train(Standard(), data, training, network=Mlp((30,)))
    model, keyed = Standard().deployed(epoch.state), draws.fork("epoch", 0)
    rows = adversarial.chosen(keyed)
    assert rows is not None
    x = data.images.float() / 255
    x[rows] = PGD(3, keep="last")(
        model, x[rows], data.labels[rows], Threat("linf", 0.1), keyed.select(rows).fork("attacked")
    )
    assert epoch.loss == pytest.approx(float(F.cross_entropy(model(x), data.labels)), rel=1e-5)


@pytest.mark.parametrize("name", PEACEFUL)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_at_eps_0_it_is_training_without_to_the_bit(name: str, share: float) -> None:
    plain = Training(epochs=2, batch_size=20, lr=0.05, threat=THREAT)
    still = dataclasses.replace(plain, adversarial=Adversarial(PGD(2), share, eps=0.0))
    attacked, clean = (train(DEFENSES[name](), pictures(), training) for training in (still, plain))
    for ours, theirs in zip(attacked, clean, strict=True):
        assert ours.loss == theirs.loss
        assert equal(ours.state, theirs.state)


@pytest.mark.parametrize("name", PEACEFUL)
def test_any_defense_goes_on_from_the_middle_to_the_bit(name: str) -> None:
    adversarial = Adversarial(PGD(2), share=0.5, eps=(0.02, 0.3))
    training = Training(epochs=3, batch_size=20, lr=0.05, threat=THREAT, adversarial=adversarial)
    straight = train(DEFENSES[name](), pictures(), training)
    resumed = train(DEFENSES[name](), pictures(), training, straight[0].state)
    assert all(equal(a.state, b.state) for a, b in zip(straight[1:], resumed, strict=True))
    plain = train(DEFENSES[name](), pictures(), dataclasses.replace(training, adversarial=None))
    assert not equal(straight[0].state, plain[0].state)


def test_parts_of_a_batch_are_attacked_as_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    adversarial = Adversarial(PGD(2), share=0.5, eps=(0.02, 0.3))
    training, network, found = (
        Training(epochs=2, batch_size=20, adversarial=adversarial),
        plugin(monkeypatch, Narrow),
        [],
    )
    for most in (10**9, 7):
        monkeypatch.setattr(Narrow, "most", most)
        found.append(train(Standard(), pictures(), training, network=network)[-1])
    assert [epoch.microbatches for epoch in found] == [1, 4]
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-5)
    for key, value in tensors(found[0].state, "model").items():
        torch.testing.assert_close(tensors(found[1].state, "model")[key], value)


def test_an_eps_of_a_range_is_drawn_anew_for_each_batch_and_is_one_for_all_its_parts() -> None:
    adversarial = Adversarial(FGSM(), eps=[0.02, 0.05])
    found = []
    for epoch, number in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        whole = batch(adversarial, number, epoch)
        x = seen(adversarial, whole, None)
        moved = Threat("linf", 1.0).distance(whole.x, x)
        rows = torch.tensor([4, 1])
        assert torch.equal(seen(adversarial, whole.select(rows), None), x[rows])
        assert moved.min() == moved.max()
        found.append(float(moved[0]))
    assert len(set(found)) == 4
    assert 0.02 <= min(found) < max(found) <= 0.05
    drawn = [adversarial.threat(WIDE, batch(adversarial).draws, number).eps for number in range(400)]
    assert min(drawn) < 0.021
    assert max(drawn) > 0.049


def test_its_own_eps_replaces_the_sweeps_and_needs_none() -> None:
    def weights(eps: Any, threat: Threat | None) -> Any:
        training = Training(epochs=1, batch_size=20, threat=threat, adversarial=Adversarial(FGSM(), eps=eps))
        return train(Standard(), pictures(), training, network=Mlp((9,)))[0].state

    wide = weights(None, Threat("linf", 0.2))
    assert equal(wide, weights(0.2, Threat("linf", 0.01)))
    assert equal(wide, weights(0.2, None))
    assert not equal(wide, weights(0.2, Threat("l2", 0.2)))
    assert not equal(wide, weights(None, Threat("linf", 0.1)))
    with pytest.raises(ValueError, match=r"^adversarial: eps must be given where training\.threat is not, got None$"):
        weights(None, None)


@pytest.mark.parametrize("defense", [PgdAT(), Learn2Perturb()], ids=lambda defense: defense.name)
def test_a_defense_that_attacks_its_images_itself_refuses_attacked_ones(defense: Any) -> None:
    training = Training(epochs=1, threat=THREAT, adversarial=Adversarial(FGSM()))
    with pytest.raises(ValueError, match=rf"^adversarial: {defense.name} attacks its images itself, .*: leave it out"):
        train(defense, pictures(), training)


def test_buys_robustness_on_digits() -> None:
    """Seeds 0 to 2 gave 0.19 to 0.21 for pcl alone and 0.51 to 0.55 with half of each batch attacked."""
    data, x, y = digits()
    threat = Threat("linf", 0.15)
    attack, left = PGD(20, loss="scaled_cross_entropy"), []
    for adversarial in (None, Adversarial(PGD(5, keep="last"), share=0.5)):
        training = Training(epochs=10, batch_size=64, lr=0.05, threat=threat, adversarial=adversarial)
        defense = PCL(proximity=0.3, separation=0.1, branch=0)
        model = defense.deployed(train(defense, data, training, network=Mlp((64,)))[-1].state)
        adversarials = attack(model, x, y, threat, Draws(0, torch.arange(len(x))))
        left.append(float((model(adversarials).argmax(1) == y).float().mean()))
    assert left[1] > left[0] + 0.15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.0}, r"share: must be in \(0, 1\], got 0\.0"),
        ({"share": 1.5}, r"share: must be in \(0, 1\], got 1\.5"),
        ({"eps": -0.1}, r"eps: must be finite and >= 0, or \[low, high\] with 0 <= low <= high, got -0\.1"),
        ({"eps": [0.2, 0.1]}, r"eps: must be .*, got \[0\.2, 0\.1\]"),
        ({"eps": [0.2]}, r"eps: must be .*, got \[0\.2\]"),
    ],
)
def test_refuses_a_setting_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Adversarial(FGSM(), **settings)
