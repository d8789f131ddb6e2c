"""What an attacker who knows a defense makes of it: expectations over draws, stand-ins in the backward pass."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attacks import BPDA, EOT, FGSM, PGD, Draws, Surface, Threat
from attacks.losses import cross_entropy
from attacks.queries import querying
from attacks.surface import knowing, surface_of
from orchestrator import evaluate_robustness
from orchestrator.cascade import stages

LINF = Threat("linf", 0.1)
X = Draws(5, torch.arange(6)).uniform(1, 4, 4, low=0.3, high=0.7)
Y = torch.arange(6) % 2
DRAWS = Draws(0, torch.arange(6))


class Swaying(nn.Module):
    """Two classes: the sum of the pixels weighed by 1 + noise, a number per example and pass."""

    def __init__(self, spread: float = 3.0) -> None:
        super().__init__()
        self.draws: Draws | None = None
        self.spread, self.asked = spread, []

    def forward(self, x: Tensor) -> Tensor:
        noise = (self.draws or Draws(0, torch.arange(len(x)))).normal(*x.shape[1:]).to(x)
        self.asked.append(noise)
        score = (x * (1 + self.spread * noise)).flatten(1).sum(1)
        return torch.stack([score, 16 - score], 1)


class Counted(nn.Module):
    """How often it is called, and by how many rows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.sizes = inner, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        logits: Tensor = self.inner(x)
        return logits


def test_the_gradient_is_that_of_the_mean_loss_over_draws_of_its_own_for_each_example() -> None:
    model = Swaying()
    with knowing(model, Surface(draws=7)), querying(model) as queries:
        gradient, logits = queries.gradient(X, Y, cross_entropy, DRAWS)
    noise = torch.stack(model.asked)
    assert noise.shape[0] == 7
    assert len(noise.flatten(0, 1)[:, 0, 0, 0].unique()) == 42  # no two examples or looks share theirs
    x = X.clone().requires_grad_()
    score = (x * (1 + model.spread * noise)).flatten(2).sum(2)
    losses = nn.functional.cross_entropy(
        torch.stack([score, 16 - score], 2).flatten(0, 1), Y.repeat(7), reduction="none"
    )
    losses.view(7, 6).mean(0).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(gradient, x.grad)
    mean = torch.stack([score, 16 - score], 2).softmax(2).mean(0)
    torch.testing.assert_close(logits.softmax(1), mean.detach())


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=3), PGD(steps=3, keep="last")])
def test_eot_does_not_depend_on_batch_and_order(attack: FGSM | PGD) -> None:
    expectation, order = EOT(draws=4, attack=attack), torch.tensor([3, 1, 5, 0, 2, 4])
    whole = expectation(Swaying().double(), X.double(), Y, LINF, DRAWS)
    shuffled = expectation(Swaying().double(), X[order].double(), Y[order], LINF, DRAWS.select(order))
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-12)
    alone = expectation(Swaying().double(), X[4:5].double(), Y[4:5], LINF, DRAWS.select(torch.tensor([4])))
    torch.testing.assert_close(alone, whole[4:5], rtol=0, atol=1e-12)


def test_more_draws_follow_the_expected_slope_more_often() -> None:
    """The expected slope of class 0 is 1 at every pixel: the share of pixels that FGSM moves the right way."""

    def share(draws: int) -> float:
        ids = torch.arange(200)
        x = torch.full((200, 1, 4, 4), 0.5)
        moved = EOT(draws=draws, attack=FGSM(loss="margin"))(Swaying(), x, ids * 0, LINF, Draws(0, ids)) - x
        return (moved < 0).float().mean().item()

    shares = [share(draws) for draws in (1, 10, 100)]
    assert shares == pytest.approx([0.63, 0.85, 0.9996], abs=0.03)  # of normals: P(z > -1 / 3 * sqrt(draws))


def test_eot_on_a_model_without_noise_finds_what_the_attack_does() -> None:
    model = Swaying(spread=0.0)
    plain = PGD(steps=4)(model, X, Y, LINF, DRAWS)
    torch.testing.assert_close(EOT(draws=3, attack=PGD(steps=4))(model, X, Y, LINF, DRAWS), plain)


class Stairs(nn.Module):
    """Two classes by the sum of the pixels, each rounded to eighths: no slope anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        score = ((8 * x).round() / 8).flatten(1).sum(1)
        return torch.stack([score, 16 - score], 1)


class Smooth(nn.Module):
    """The same without the rounding, behind a dropout that would show if it were left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.dropout = nn.Parameter(torch.ones(())), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * self.dropout(x).flatten(1).sum(1)
        return torch.stack([score, 16 - score], 1)


BRIGHT, ZEROS = torch.full((4, 1, 4, 4), 0.6), torch.zeros(4, dtype=torch.long)  # a sum of 10 after rounding
FOUR = Draws(0, torch.arange(4))


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=5, random_start=False)])
def test_bpda_goes_through_what_has_no_slope(attack: FGSM | PGD) -> None:
    threat, smooth = Threat("linf", 0.2), Smooth().train()
    assert torch.equal(attack(Stairs(), BRIGHT, ZEROS, threat, FOUR), BRIGHT)
    adversarial = BPDA(attack, smooth)(Stairs(), BRIGHT, ZEROS, threat, FOUR)
    assert threat.allows(BRIGHT, adversarial).all()
    assert (Stairs()(adversarial).argmax(1) == 1).all()
    assert smooth.training
    assert smooth.dropout.training
    assert smooth.scale.requires_grad
    assert smooth.scale.grad is None


def test_the_loss_and_the_verdict_are_those_of_the_model_not_of_the_stand_in() -> None:
    model = Stairs()
    with knowing(model, Surface(backward=lambda x: 3 * Smooth().eval()(x))), querying(model) as queries:
        gradient, logits = queries.gradient(BRIGHT, ZEROS, lambda given, y: given[:, 0] ** 2, FOUR)
        assert torch.equal(queries.logits(BRIGHT, FOUR), Stairs()(BRIGHT))
    assert torch.equal(logits, Stairs()(BRIGHT))
    torch.testing.assert_close(gradient, torch.full_like(BRIGHT, 3 * 2 * 10.0))  # 2 * logit of the model * slope


def test_a_stand_in_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^backward: must give \[4, 2\] as the model does, got \[4, 1, 4, 4\]$"):
        BPDA(FGSM(), lambda x: x)(Stairs(), BRIGHT, ZEROS, LINF, FOUR)


def test_an_evaluation_attacks_through_the_surface() -> None:
    """One rounding away from every gradient: robust for who does not know the surface, not at all for who does."""
    threat, surface = Threat("linf", 0.2), Surface(backward=Smooth())
    blind = evaluate_robustness(Stairs(), BRIGHT, ZEROS, threat=threat, attacks=["fgsm"], doubts="off")
    knowing_it = evaluate_robustness(
        Stairs(), BRIGHT, ZEROS, threat=threat, attacks=["fgsm"], surface=surface, doubts="off"
    )
    assert (blind.robust_accuracy, knowing_it.robust_accuracy) == (1.0, 0.0)
    beside = Stairs()
    beside.surface = surface  # type: ignore[assignment]
    found = evaluate_robustness(beside, BRIGHT, ZEROS, threat=threat, attacks=["fgsm"], doubts="off")
    assert found.robust_accuracy == 0.0
    assert surface_of(beside) is surface


def test_an_evaluation_averages_over_the_draws_of_the_surface_where_there_is_noise() -> None:
    noisy, still = Counted(Swaying()), Counted(Stairs())
    attack, surface = PGD(steps=2, random_start=False, keep="last"), Surface(draws=5)
    for model, expected in ((noisy, 10), (still, 2)):
        found = evaluate_robustness(model, BRIGHT, ZEROS, threat=LINF, attacks=attack, surface=surface, doubts="off")
        assert found.per_attack["forward_passes"].tolist() == [expected]


def test_noise_of_torch_that_the_surface_declares_is_no_doubt() -> None:
    class Undrawn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = Smooth().eval()(x)
            return logits + torch.rand_like(logits)

    for surface, kinds in ((None, ["random_outputs"]), (Surface(draws=3), [])):
        images, labels = torch.cat([BRIGHT, BRIGHT - 0.4]), torch.arange(8) // 4
        found = evaluate_robustness(
            Undrawn(), images, labels, threat=Threat("linf", 0.01), attacks=["fgsm"], surface=surface
        )
        assert [doubt.kind for doubt in found.doubts] == kinds


def test_knowing_puts_back_what_was_beside_the_model() -> None:
    model, held, lent = Stairs(), Surface(draws=2), Surface(draws=3)
    with knowing(model, lent):
        assert surface_of(model) is lent
    with pytest.raises(RuntimeError, match="broke"), knowing(model, lent):
        raise RuntimeError("broke")
    assert "surface" not in vars(model)
    model.surface = held  # type: ignore[assignment]
    with knowing(model, lent), knowing(model, replace(lent, draws=4)):
        assert surface_of(model).draws == 4
    assert model.surface is held
    assert surface_of(copy.deepcopy(model)) == held


def test_attacks_within_eot_are_told_apart_and_made_of_blocks() -> None:
    block = {"name": "eot", "draws": 3, "attack": {"name": "pgd", "steps": 4}}
    (ours,), (same,), (other,) = (stages(c) for c in (block, EOT(3, PGD(4)), EOT(3, FGSM())))
    assert ours.attack == EOT(3, PGD(4))
    assert ours.id == same.id != other.id
    assert json.loads(ours.json)["attack"] == json.loads(stages(PGD(4))[0].json)
