"""What learn2perturb alone promises; what it shares with the others is in test_defenses_contract.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from test_defenses_contract import COUNT, THREAT, TRAINING, digits, equal, pictures, train
from torch import Tensor, nn

from attacks import pgd
from attacks.draws import Draws
from attacks.sources import drawing, is_stochastic
from attacks.threat import Threat
from defenses import Learn2Perturb, PgdAT, Standard, Training
from defenses.data import Data
from defenses.fit import Batch
from defenses.learner import Learner, new_learner
from defenses.networks import Mlp, ResNet
from defenses.noise.noisy import Noisy, new_noise
from defenses.noise.push import new_noise_optimizer
from defenses.noise.sites import Site
from defenses.state import Epoch, State, tensors
from orchestrator import evaluate_robustness

CLEAN = Learn2Perturb(adversarial_weight=0.0)
WIDE = Threat("linf", 0.2)
STILL: dict[str, Any] = {"gamma": 0.0, "lr_ratio": 0.0}


def weights(epoch: Epoch) -> State:
    return {key: value for key, value in epoch.state.items() if not key.startswith(("noise.", "optimizer.noise."))}


def deviations(epoch: Epoch) -> list[float]:
    return [float(value) for tensor in tensors(epoch.state, "noise").values() for value in tensor.flatten()]


@pytest.mark.parametrize(("gamma", "epoch"), [(0.1, 2), (0.15, 3)])
@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0871), (2.0, 0.01)])
def test_one_batch_moves_a_deviation_twice(slope: float, expected: float, gamma: float, epoch: int) -> None:
    """By hand, from 0.25 at rate 0.1, momentum 0.9, noise from epoch 2 on: gamma / tau is 0.1 / 1 and then 0.15 / 1.5.

    Regularizer: slope -0.1 / (2 * 0.5) = -0.1, memory
    -0.1, move 0.1 * (0.1 + 0.9 * 0.1): 0.269. Loss of slope 1: memory -0.09 + 1 = 0.91, move 0.1 * (1 + 0.9 * 0.91):
    0.0871. Of slope 2: memory 1.91, 0.269 - 0.3719 is below the floor.
    """
    training, data = Training(epochs=1, batch_size=COUNT, lr=1.0), pictures()
    learner = new_learner(Mlp((3,)), data, training, Draws(0, torch.arange(COUNT)))
    noise = new_noise([Site("1", 0, False, (1,))], "element", 0.25)
    optimizers = {**learner.optimizers, "noise": new_noise_optimizer(noise, 0.1, 0.9)}
    both = Learner(learner.network, {**learner.modules, "noise": noise}, optimizers)
    batch = Batch(data.images / 255, data.labels, Draws(0, torch.arange(COUNT)), epoch, 0)
    step = Learn2Perturb(gamma=gamma, noise_delay=2)._step
    step(both, lambda _model, _batch: slope * noise["1"].sigma.sum(), batch, training)
    assert float(noise["1"].sigma.detach()) == pytest.approx(expected, rel=1e-4)


def test_noise_too_small_to_see_changes_nothing() -> None:
    """The layers in place, at deviations that vanish in float32: the training of `standard`, to its rounding."""
    still = dataclasses.replace(CLEAN, sigma=0.0, floor=1e-30, **STILL)
    for ours, theirs in zip(train(still, pictures()), train(Standard(), pictures()), strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
        for key, value in tensors(theirs.state, "model").items():
            assert torch.allclose(tensors(ours.state, "model")[key], value, rtol=1e-5, atol=1e-6), key


def test_before_its_epoch_there_is_no_noise() -> None:
    late = train(dataclasses.replace(CLEAN, noise_delay=2), pictures())
    standard = train(Standard(), pictures())
    for ours, theirs in zip(late[:2], standard[:2], strict=True):
        assert ours.loss == theirs.loss
        assert equal(weights(ours), weights(theirs))
        assert set(deviations(ours)) == {0.25}
    assert not equal(weights(late[2]), weights(standard[2]))
    assert len(set(deviations(late[2]))) > 100


def test_deployed_is_noisy_where_its_last_epoch_was() -> None:
    defense = dataclasses.replace(CLEAN, noise_delay=1)
    before, after = (defense.deployed(epoch.state) for epoch in train(defense, pictures())[:2])
    assert not is_stochastic(before)
    assert is_stochastic(after)


def test_before_its_epoch_nothing_is_attacked() -> None:
    late = train(Learn2Perturb(adversarial_delay=2), pictures())
    never = train(CLEAN, pictures())
    assert all(equal(ours.state, theirs.state) for ours, theirs in zip(late[:2], never[:2], strict=True))
    assert not equal(late[2].state, never[2].state)


def test_goes_on_across_the_beginning_of_noise_and_attacks() -> None:
    defense, data = Learn2Perturb(noise_delay=1, adversarial_delay=2, granularity="channel"), pictures()
    straight = train(defense, data)
    for done in (1, 2):
        resumed = train(defense, data, state=straight[done - 1].state)
        assert all(equal(a.state, b.state) for a, b in zip(straight[done:], resumed, strict=True))


def test_without_sites_it_is_adversarial_training() -> None:
    """The noise-free twin: the "vanilla" training that the paper compares with. The order of the two losses differs."""
    twin = Learn2Perturb(sites="none", labels="true", steps=3, adversarial_weight=0.75)
    training = Training(epochs=2, batch_size=20, lr=0.05, threat=THREAT)
    ours, theirs = (
        train(defense, pictures(), training, network=Mlp((9,)))[0]
        for defense in (twin, PgdAT(steps=3, clean_weight=0.25))
    )
    clean = train(Standard(), pictures(), training, network=Mlp((9,)))[0]
    assert ours.loss == pytest.approx(theirs.loss, rel=0.05)  # other random starts
    assert ours.loss > 1.02 * clean.loss
    assert twin.surface().draws == 1


def first_loss(defense: Any, threat: Threat | None = WIDE) -> float:
    """At rate ~0, over one batch."""
    training = Training(epochs=1, batch_size=COUNT, lr=1e-30, threat=threat)
    return train(defense, pictures(), training, network=Mlp((30,)))[0].loss


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    clean, attacked = (
        first_loss(Learn2Perturb(adversarial_weight=weight, labels="true", **STILL)) for weight in (0.0, 1.0)
    )
    assert attacked > clean + 0.1
    mixed = first_loss(Learn2Perturb(adversarial_weight=0.25, labels="true", **STILL))
    assert mixed == pytest.approx(0.75 * clean + 0.25 * attacked, rel=1e-5)


def test_attacked_images_meet_other_noise_than_clean_ones() -> None:
    """At eps 0 they are the same images: only the noise differs."""
    clean, same = (
        first_loss(Learn2Perturb(adversarial_weight=weight, **STILL), Threat("linf", 0.0)) for weight in (0, 1)
    )
    assert abs(clean - same) > 1e-4
    assert clean == pytest.approx(same, rel=0.1)


def test_deviations_begin_at_the_floor_where_sigma_is_below() -> None:
    """The regularizer's slope at 0 is infinite."""
    begun = train(dataclasses.replace(CLEAN, sigma=0.0, floor=0.02), pictures(), network=Mlp((9,)))
    assert 0.0199 < min(deviations(begun[0])) < max(deviations(begun[0])) < 0.1


def test_predicted_labels_are_the_networks_own() -> None:
    """Where the network is wrong, the attack away from its prediction helps it."""
    true, predicted = (first_loss(Learn2Perturb(labels=labels, **STILL)) for labels in ("true", "predicted"))
    assert predicted < true - 0.05


def test_the_attack_meets_the_noise_in_eval_mode_and_stays_in_the_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[nn.Module, Tensor, Tensor, Tensor]] = []
    asked: list[bool] = []
    real = pgd.PGD.__call__

    def watched(self: Any, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        hook = model.register_forward_pre_hook(
            lambda module, _: asked.append(any(m.training for m in module.modules()))
        )
        adversarial = real(self, model, x, y, threat, draws)
        hook.remove()
        found.append((model, x, y, adversarial))
        return adversarial

    monkeypatch.setattr(pgd.PGD, "__call__", watched)
    train(Learn2Perturb(steps=3), pictures(), dataclasses.replace(TRAINING, epochs=1))
    assert len(found) == 2
    assert asked == [False] * 6  # where the attack ends is not looked at again
    for model, x, _, adversarial in found:
        assert isinstance(model, Noisy)
        assert model.is_on
        assert THREAT.allows(x, adversarial).all()
        assert THREAT.distance(x, adversarial).min() > 0.01


def test_gamma_pushes_noise_up() -> None:
    """The sum of the deviations grows with gamma, at every granularity."""
    for granularity in ("element", "channel", "layer"):
        none, some, more = (
            sum(deviations(train(dataclasses.replace(CLEAN, granularity=granularity, gamma=gamma), pictures())[-1]))
            for gamma in (0.0, 1e-2, 1e-1)
        )
        assert none < some < more


def test_a_rate_of_zero_fixes_the_noise() -> None:
    fixed = train(Learn2Perturb(lr_ratio=0.0, sigma=0.1), pictures())[-1]
    assert deviations(fixed) == pytest.approx([0.1] * len(deviations(fixed)))


def test_noise_off_at_test_time_is_the_network_beneath() -> None:
    defense = Learn2Perturb()
    model = defense.deployed(train(defense, pictures(), dataclasses.replace(TRAINING, epochs=1))[0].state)
    assert isinstance(model, Noisy)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with drawing(model, Draws(0, torch.arange(3))):
        assert not torch.allclose(model(x), model.network(x), atol=1e-3)
    assert torch.equal(model.network(x), model.network(x))


def test_is_judged_over_draws_and_batch_size_does_not_show() -> None:
    defense, data = Learn2Perturb(sigma=0.5), pictures()
    model = defense.deployed(train(defense, data, network=Mlp((30,)))[-1].state)
    x, found = data.images.float() / 255, []
    for batch_size in (41, 7):
        robustness = evaluate_robustness(
            model,
            x,
            data.labels,
            threat=THREAT,
            attacks=[{"name": "pgd", "steps": 3}],
            surface=defense.surface(),
            batch_size=batch_size,
        )
        assert not [doubt for doubt in robustness.doubts if doubt.kind == "random_outputs"]
        found.append(robustness.per_example["robust_probability"])
    assert found[0].notna().all()
    assert ((found[0] > 0) & (found[0] < 1)).any()
    assert (found[0] == found[1]).mean() > 0.9  # rounding may tip a pass


def test_learns_digits_under_noise_that_it_keeps() -> None:
    data, x, y = digits()
    training = Training(epochs=6, batch_size=64, lr=0.05, threat=Threat("linf", 0.15))
    defense = Learn2Perturb(steps=3)
    last = train(defense, Data(data.images[:600], data.labels[:600], 10), training, network=Mlp((64,)))[-1]
    model = defense.deployed(last.state)
    assert (model(x).argmax(1) == y).float().mean() > 0.8
    found = torch.tensor(deviations(last))
    assert found.min() >= 0.01
    assert found.std() > 1e-3


def test_ready_when_noise_and_attacks_have_begun() -> None:
    assert Learn2Perturb().ready_epoch == 0
    assert Learn2Perturb(noise_delay=2, adversarial_delay=5).ready_epoch == 5
    assert Learn2Perturb(noise_delay=2, adversarial_delay=5, adversarial_weight=0.0).ready_epoch == 2
    assert Learn2Perturb(noise_delay=2, sites="none").ready_epoch == 0
    assert Learn2Perturb().surface().draws >= 20


def test_a_threat_is_needed_where_images_are_attacked() -> None:
    with pytest.raises(ValueError, match=r"^eps: must be given where training\.threat is not, got None$"):
        train(Learn2Perturb(), pictures(), Training(epochs=1))
    assert first_loss(CLEAN, None) == first_loss(CLEAN)
    assert first_loss(Learn2Perturb(eps=0.2), None) == first_loss(Learn2Perturb(eps=0.2), Threat("linf", 0.01))


@pytest.mark.parametrize("field", ["noise_delay", "adversarial_delay"])
def test_what_would_never_begin_is_refused(field: str) -> None:
    late = Learn2Perturb(**{field: 3})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"^{field}: must be less than training\.epochs, 3, got 3$"):
        train(late, pictures())
    train(dataclasses.replace(late, **{field: 2}), pictures())
    train(Learn2Perturb(sites="none", adversarial_weight=0.0, **{field: 3}), pictures())  # type: ignore[arg-type]


def test_a_state_of_other_noise_is_not_gone_on_from() -> None:
    state = train(Learn2Perturb(), pictures(), dataclasses.replace(TRAINING, epochs=1))[0].state
    with pytest.raises(RuntimeError, match="size mismatch"):
        train(Learn2Perturb(granularity="layer"), pictures(), state=state, network=ResNet(8, 2))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("granularity", "pixel", "one of element, channel, layer"),
        ("sites", "everywhere", "one of blocks, .*"),
        ("annealing", "cosine", "one of harmonic, .*"),
        ("labels", "guessed", "one of true, predicted"),
        ("sigma", -0.1, "finite and >= 0"),
        ("gamma", float("inf"), "finite and >= 0"),
        ("lr_ratio", float("nan"), "finite and >= 0"),
        ("floor", 0.0, "finite and > 0"),
        ("momentum", 1.0, r"in \[0, 1\)"),
        ("adversarial_weight", 1.1, r"in \[0, 1\]"),
        ("noise_delay", -1, "a whole number >= 0"),
        ("adversarial_delay", 1.5, "a whole number >= 0"),
        ("steps", 0, "a whole number >= 1"),
        ("step_size", 0.0, "finite and > 0"),
        ("eps", -0.1, "finite and >= 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: must be {allowed}, got {value!r}"):
        Learn2Perturb(**{field: value})
