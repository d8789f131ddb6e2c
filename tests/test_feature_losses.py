"""What feature_losses promises beyond the contract: its loss, who learns from it, what is deployed and attacked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_defenses_contract import COUNT, digits, equal, pictures, train
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.fgsm import FGSM
from attacks.losses import LOSSES
from attacks.pgd import PGD
from attacks.threat import Threat
from defenses import FeatureLosses, Standard, State, Training
from defenses.adversarial import Adversarial
from defenses.features import chosen, named, stages
from defenses.fit import Batch
from defenses.networks import Mlp, ResNet, build, describe
from defenses.reconstruction.autoencoder import Autoencoder
from defenses.reconstruction.corruption import Corruption
from defenses.reconstruction.perceptual import Perceptual
from defenses.state import deployed, network_of, tensors

SMALL: dict[str, Any] = {"width": 4}
STILL = Training(epochs=1, batch_size=COUNT, lr=1e-30, weight_decay=0.0)
THREAT = Threat("linf", 0.1)
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"classifier_epochs": 2, "corruption": "none"},
    "independent": {"features": "independent", "classifier_epochs": 1, "skip": "unet", "bottleneck": 3},
    "mixed": {"corruption": "mixed", "steps": 2, "residual": True, "distance": "absolute"},
    "through it all": {
        "corruption": "pgd",
        "steps": 2,
        "against": "pipeline",
        "layers": ("stage1",),
        "weights": (0.3,),
    },
}
VARIANT = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


def batch(rows: int = 60) -> Batch:
    x = torch.rand(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.arange(rows) % 3, Draws(0, torch.arange(rows)), 0, 0)


@pytest.mark.parametrize("size", [7, 8, 12, 28])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"skip": "unet"}, {"bottleneck": 2}, {"depth": 3, "is_residual": True}])
def test_the_autoencoder_gives_images_of_the_size_it_was_given(
    channels: int, size: int, settings: dict[str, Any]
) -> None:
    x = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(0))
    model = Autoencoder(channels, **{"width": 4, "depth": 2, "bottleneck": 0} | settings)
    cleaned = model(x)
    assert cleaned.shape == x.shape
    assert 0 <= cleaned.min() <= cleaned.max() <= 1
    torch.testing.assert_close(model(x[1:2]), cleaned[1:2])


def test_a_residual_autoencoder_that_answers_nothing_leaves_the_image() -> None:
    model, x = Autoencoder(1, 4, 2, 0, is_residual=True), torch.rand(3, 1, 8, 8)
    nn.init.zeros_(model.last.weight)
    nn.init.zeros_(model.last.bias)
    torch.testing.assert_close(model(x), x.clamp(1 / 256, 1 - 1 / 256))


def hidden(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The layers of an `Mlp((7, 5))`, written out: what enters its second and third layer, and the logits."""
    x = ((x - weights["0.mean"]) / weights["0.std"]).flatten(1)
    first = (x @ weights["2.weight"].T + weights["2.bias"]).relu()
    second = (first @ weights["4.weight"].T + weights["4.bias"]).relu()
    return [first, second, second @ weights["6.weight"].T + weights["6.bias"]]


@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_the_loss_is_that_of_pixels_and_features_written_out(distance: str) -> None:
    """Over one batch at rates of ~0, beside the cross-entropy of the classifier."""
    defense = FeatureLosses(
        **SMALL, corruption="none", weights=(0.7, 2.0), pixel_weight=0.3, distance=distance, stages=2, lr=1e-30
    )
    data = pictures()
    (epoch,) = train(defense, data, STILL, network=Mlp((7, 5)))
    x = data.images / 255
    model = defense.deployed(epoch.state)
    apart = F.mse_loss if distance == "squared" else F.l1_loss
    z, weights = model.autoencoder(x), tensors(epoch.state, "model")
    clean, found = hidden(weights, x), hidden(weights, z)
    expected = F.cross_entropy(clean[2], data.labels) + 0.3 * apart(z, x)
    expected += 0.7 * apart(found[0], clean[0]) + 2.0 * apart(found[1], clean[1])
    assert epoch.loss == pytest.approx(float(expected), rel=1e-5)


def test_the_perceptual_loss_reaches_the_autoencoder_and_not_the_network() -> None:
    """By the features alone; the statistics of batch norm stay, and so do the network's mode and flags."""
    network = build(describe(ResNet(8, 2), 1, 8, 3)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    autoencoder, x = Autoencoder(1, 4, 2, 0), batch().x
    perceptual = Perceptual(stages(network)[-3:], (1.0, 1.0, 1.0), 0.0, "squared")
    torch.autograd.backward(perceptual(network, autoencoder(x), x))
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in autoencoder.parameters())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert float(perceptual(network, x, x)) == 0


def weights_of(state: State, name: str) -> dict[str, Tensor]:
    return tensors(state, name)


def moved(before: State, after: State, name: str) -> list[bool]:
    return [not torch.equal(value, weights_of(after, name)[key]) for key, value in weights_of(before, name).items()]


def test_the_classifier_learns_alone_first_and_rests_then() -> None:
    """Its first epochs are standard training to the bit; after them not even batch norm's statistics move."""
    training = Training(epochs=4, batch_size=20, lr=0.05)
    defense = FeatureLosses(**SMALL, classifier_epochs=2, features="independent")
    ours, theirs = (train(each, pictures(), training) for each in (defense, Standard()))
    assert defense.ready_epoch == 2
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert all(torch.equal(mine.state[key], value) for key, value in other.state.items() if key[:5] == "model")
    assert not any(moved(ours[0].state, ours[1].state, "autoencoder"))
    for before, after in ((ours[1], ours[2]), (ours[2], ours[3])):
        assert not any(moved(before.state, after.state, "model"))
        assert not any(moved(before.state, after.state, "independent"))
        assert all(moved(before.state, after.state, "autoencoder"))
    assert equal(tensors(ours[3].state, "model"), tensors(ours[1].state, "model"))
    x = pictures().images / 255
    assert torch.equal(defense.deployed(ours[1].state)(x), deployed(ours[1].state)(x))
    assert not torch.equal(defense.deployed(ours[2].state)(x), deployed(ours[2].state)(x))


def test_a_trained_classifier_can_be_what_it_starts_from() -> None:
    base = train(Standard(), pictures(), Training(epochs=4, batch_size=20, lr=0.05))[-1].state
    training = Training(epochs=1, batch_size=20, start=network_of(base))
    state = train(FeatureLosses(**SMALL, classifier_epochs=0), pictures(), training)[0].state
    assert all(torch.equal(value, tensors(base, "model")[key]) for key, value in tensors(state, "model").items())


def test_independent_features_are_those_of_another_network() -> None:
    training = Training(epochs=2, batch_size=20, lr=0.05)
    state = train(FeatureLosses(**SMALL, features="independent"), pictures(), training)[-1].state
    task, other = tensors(state, "model"), tensors(state, "independent")
    assert task.keys() == other.keys()
    assert not torch.equal(task["linear.weight"], other["linear.weight"])
    shared = train(FeatureLosses(**SMALL), pictures(), training)[-1].state
    assert equal(task, tensors(shared, "model"))
    assert not equal(tensors(state, "autoencoder"), tensors(shared, "autoencoder"))


@VARIANT
def test_every_variant_resumes_to_the_bit(settings: dict[str, Any]) -> None:
    training = Training(epochs=4, batch_size=20, lr=0.01, clip=5.0, ema=0.5, augment="crop", threat=THREAT)
    defense, data = FeatureLosses(**SMALL | settings), pictures()
    straight = train(defense, data, training)
    for done in (1, 2, 3):
        resumed = train(defense, data, training, straight[done - 1].state)
        assert all(equal(a.state, b.state) for a, b in zip(straight[done:], resumed, strict=True))


@VARIANT
def test_every_surface_gives_each_image_a_gradient(settings: dict[str, Any]) -> None:
    """Through the whole pipeline, and with the identity in place of the autoencoder's."""
    layers = {"layers": ("2",)} if "layers" in settings else {}
    defense, data = FeatureLosses(**{"width": 8, "lr": 0.01} | settings | layers), pictures()
    training = Training(epochs=4, batch_size=20, lr=0.05, threat=THREAT)
    model = defense.deployed(train(defense, data, training, network=Mlp((16,)))[-1].state)
    x = (data.images / 255).requires_grad_()
    torch.testing.assert_close(model.feature_guide(x), model(x))
    for name in defense.surface().losses:
        for asked in (model, model.feature_guide):
            (gradient,) = torch.autograd.grad(LOSSES[name](asked(x), data.labels).sum(), x)
            assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_with_the_identity_as_stand_in_the_gradient_is_the_classifiers_at_the_cleaned_image() -> None:
    defense, data = FeatureLosses(**SMALL), pictures()
    model = defense.deployed(train(defense, data, Training(epochs=1, batch_size=20, lr=0.05))[-1].state)
    x = (data.images / 255).requires_grad_()
    cleaned = model.autoencoder(x).detach().requires_grad_()
    (ours,) = torch.autograd.grad(model.feature_guide(x)[:, 0].sum(), x)
    (theirs,) = torch.autograd.grad(model.classifier(cleaned)[:, 0].sum(), cleaned)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_an_attacked_image_is_that_attacks_answer(kind: str) -> None:
    model, here = build(describe(Mlp((7,)), 1, 8, 3)), batch()
    attack = FGSM() if kind == "fgsm" else PGD(3, step_size=0.02, keep="last")
    expected = attack(model, here.x, here.y, THREAT, here.draws.fork(kind))
    assert torch.equal(Corruption(kind, 0.1, 3, 0.02, THREAT)(model, here), expected)
    assert THREAT.distance(here.x, expected).max() > 0.05


def test_mixed_corruption_is_one_of_three_for_each_image_whatever_the_batch() -> None:
    model, here = build(describe(Mlp((7,)), 1, 8, 3)), batch()
    kinds = {kind: Corruption(kind, 0.1, 3, None, THREAT)(model, here) for kind in ("gaussian", "fgsm", "pgd")}
    mixed = Corruption("mixed", 0.1, 3, None, THREAT)
    found = mixed(model, here)
    which = torch.stack([(found == each).flatten(1).all(1) for each in kinds.values()])
    assert which.any(0).all()
    assert (which.sum(1) > 10).all()
    assert not which.all(1).any()
    rows = torch.tensor([40, 2, 17])
    torch.testing.assert_close(mixed(model, here.select(rows)), found[rows])


def test_gaussian_corruption_has_its_deviation_and_stays_in_the_box() -> None:
    middle = Batch(torch.full((400, 1, 8, 8), 0.5), torch.zeros(400).long(), Draws(0, torch.arange(400)), 0, 0)
    noisy = Corruption("gaussian", 0.05, 1, None, None)(nn.Identity(), middle)
    assert float((noisy - 0.5).std()) == pytest.approx(0.05, rel=0.03)
    wild = Corruption("gaussian", 5.0, 1, None, None)(nn.Identity(), middle)
    assert (wild.min(), wild.max()) == (0, 1)


def test_the_threat_matters_only_where_it_trains_on_attacked_images() -> None:
    assert not FeatureLosses().uses_threat
    assert FeatureLosses(corruption="mixed").uses_threat
    assert not FeatureLosses(corruption="mixed", eps=0.1).uses_threat


def left(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).float().mean())


def test_who_attacks_the_bare_classifier_is_cleaned_away_and_who_goes_through_both_is_not() -> None:
    """Digits, 300 images, seeds 0 to 2: clean 0.77 to 0.86; of images made against the bare classifier, which keeps
    0.18 to 0.24 of them, 0.40 to 0.51 are right behind the autoencoder; of images made against both 0.15 to 0.17.
    """
    data, x, y = digits()
    defense = FeatureLosses(width=8, std=0.15, lr=5e-3, classifier_epochs=6)
    training = Training(epochs=14, batch_size=64, lr=0.05, schedule="constant")
    model = defense.deployed(train(defense, data, training, network=Mlp((64,)))[-1].state)
    threat, draws = Threat("linf", 0.15), Draws(0, torch.arange(300))
    grey, through = (PGD(10)(attacked, x, y, threat, draws) for attacked in (model.classifier, model))
    bare, cleaned = left(model.classifier, grey, y), left(model, grey, y)
    assert left(model, x, y) > 0.7
    assert cleaned > bare + 0.1
    assert left(model, through, y) < cleaned - 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["stage7"]}, r"layers: must be modules of the network: .*; got 'stage7'.*"),
        ({"weights": [1.0, 2.0]}, r"weights: must be one number, or one for each of 3 layers, got \(1.0, 2.0\)"),
        ({"classifier_epochs": 3}, r"classifier_epochs: must be below training\.epochs 3, or .*, got 3"),
        ({"corruption": "fgsm"}, r"eps: must be given where training\.threat is not, got None"),
        ({"features": "vgg16"}, "features: must be one of task, independent, got 'vgg16'"),
        ({"distance": "cosine"}, "distance: must be one of squared, absolute, got 'cosine'"),
        ({"corruption": "blur"}, "corruption: must be one of none, gaussian, fgsm, pgd, mixed, got 'blur'"),
        ({"against": "both"}, "against: must be one of classifier, pipeline, got 'both'"),
        ({"skip": "all"}, "skip: must be one of none, unet, got 'all'"),
        ({"stages": 0}, "stages: must be a whole number >= 1, got 0"),
        ({"width": 0}, "width: must be a whole number >= 1, got 0"),
        ({"depth": 0}, "depth: must be a whole number >= 1, got 0"),
        ({"bottleneck": -1}, "bottleneck: must be a whole number >= 0, got -1"),
        ({"steps": 0}, "steps: must be a whole number >= 1, got 0"),
        ({"classifier_epochs": -1}, "classifier_epochs: must be a whole number >= 0, got -1"),
        ({"weights": -1.0}, "weights: must be finite and >= 0, got -1.0"),
        ({"pixel_weight": -1.0}, "pixel_weight: must be finite and >= 0, got -1.0"),
        ({"std": float("inf")}, "std: must be finite and >= 0, got inf"),
        ({"lr": 0.0}, "lr: must be finite and > 0, got 0.0"),
        ({"step_size": 0.0}, "step_size: must be finite and > 0, got 0.0"),
        ({"eps": -0.1}, "eps: must be finite and >= 0, got -0.1"),
        ({"weights": 0.0, "pixel_weight": 0.0}, "weights: must not all be 0 where pixel_weight is, or .*"),
        ({"features": "independent", "classifier_epochs": 0}, "classifier_epochs: must be >= 1 or null .*, got 0"),
    ],
)
def test_refuses_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        train(FeatureLosses(**settings), pictures(), Training(epochs=3, batch_size=20))


def test_images_that_come_attacked_already_are_refused_where_it_attacks_them() -> None:
    training = Training(epochs=1, batch_size=20, threat=THREAT, adversarial=Adversarial(FGSM()))
    with pytest.raises(ValueError, match=r"^adversarial: feature_losses attacks its images itself"):
        train(FeatureLosses(corruption="pgd"), pictures(), training)
    assert train(FeatureLosses(**SMALL), pictures(), training)


def test_layers_can_be_named_and_weighed_one_by_one() -> None:
    network = build(describe(ResNet(8, 2), 1, 8, 3))
    assert chosen(network, ["stage1"], 2) == named(network, ["stage1"])
    assert chosen(network, [], 2) == stages(network)[-2:]
