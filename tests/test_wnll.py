"""What wnll promises beyond the contract: its two stages, its templates, what it deploys, how it is attacked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_defenses_contract import COUNT, digits, equal, pictures, train
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.feature_pgd import FeaturePGD
from attacks.losses import LOSSES
from attacks.pgd import PGD
from attacks.sources import drawing, is_stochastic
from attacks.threat import Threat
from defenses import WNLL, Data, Standard, State, Training
from defenses.interpolation.buffered import Buffered, buffered
from defenses.interpolation.inductive import inductive
from defenses.interpolation.templates import Neighbourhood, Templates, template_rows
from defenses.networks import ConvNet, LeNet, Mlp, Network, Nin, ResNet, SmallCnn, build, describe
from defenses.state import tensors

SMALL: dict[str, Any] = {"k": 4, "sigma_rank": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"loops": 2, "interpolation_epochs": 5, "template": 20},
    "balanced, drawn": {"templates": 3, "sampling": "balanced", "use": "drawn", "buffer": 2},
    "all, transductive": {"sampling": "all", "mode": "transductive", "weighting": "quartic"},
    "head alone": {"interpolation_epochs": 0, "buffer": 0},
}
VARIANT = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
STILL = Training(epochs=2, batch_size=COUNT, lr=1e-30, weight_decay=0.0, momentum=0.0)


def weights_of(state: State, part: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors(state, "model").items() if key.startswith(part)}


def hidden(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An `Mlp((7,))` with one buffer layer, written out: what comes to the buffer, and what leaves it."""
    x = ((x - weights["network.0.mean"]) / weights["network.0.std"]).flatten(1)
    entering = (x @ weights["network.2.weight"].T + weights["network.2.bias"]).relu()
    return entering, (entering @ weights["buffer.0.weight"].T + weights["buffer.0.bias"]).relu()


@pytest.mark.parametrize(
    ("loops", "interpolation", "epochs", "expected"),
    [
        (1, 1, 4, "CCCI"),
        (1, 0, 4, "CCCC"),
        (2, 1, 6, "CCICCI"),
        (2, 5, 6, "CIICII"),  # never the first of a loop
        (3, 1, 5, "CCICI"),
        (1, 3, 1, "C"),
    ],
)
def test_each_loop_ends_with_epochs_of_interpolation(
    loops: int, interpolation: int, epochs: int, expected: str
) -> None:
    defense = WNLL(loops=loops, interpolation_epochs=interpolation)
    stages = [defense._stage(epoch, epochs) for epoch in range(epochs)]
    assert "".join("I" if is_interpolated else "C" for _, is_interpolated in stages) == expected
    assert [loop for loop, _ in stages] == sorted(loop for loop, _ in stages)
    assert stages[-1][0] == loops - 1


@pytest.mark.parametrize("network", [Mlp((7,)), ResNet(8, 2)], ids=lambda network: network.name)
def test_interpolation_epochs_move_the_buffer_and_nothing_else(network: Network) -> None:
    """Neither weights nor the running statistics of batch norm, nor by momentum or weight decay."""
    defense = WNLL(**SMALL, interpolation_epochs=2, interpolation_lr=0.2)
    training = Training(epochs=4, batch_size=20, lr=0.05, weight_decay=1e-2)
    first, second, third, fourth = train(defense, pictures(), training, network=network)
    for before, after in ((second, third), (third, fourth)):
        for key, value in weights_of(before.state, "network").items():
            assert torch.equal(value, weights_of(after.state, "network")[key]), key
        assert after.learning_rate == pytest.approx(0.2 * 0.05)
    moves = [(first, second), (second, third), (third, fourth)]
    for before, after in moves:
        assert not any(
            torch.equal(value, weights_of(after.state, "buffer")[key])
            for key, value in weights_of(before.state, "buffer").items()
        )
    assert not torch.equal(
        weights_of(first.state, "network.")[next(reversed(weights_of(first.state, "network")))],
        weights_of(second.state, "network.")[next(reversed(weights_of(second.state, "network")))],
    )


def test_the_rate_of_interpolation_falls_with_the_number_of_the_loop() -> None:
    epochs = train(WNLL(**SMALL, loops=2), pictures(), Training(epochs=4, batch_size=20, lr=0.04))
    assert [epochs[number].learning_rate for number in (1, 3)] == pytest.approx([0.5 * 0.04, 0.5 * 0.04 / 2])


def test_the_interpolated_loss_and_its_gradient_are_the_papers_written_out() -> None:
    """One step of the buffer by hand: the softmax's residual of the interpolated scores, row by row, through the
    linear head; an image of the template is not among its own neighbours.
    """
    defense, data = WNLL(**SMALL, template=12, interpolation_lr=1.0), pictures()
    network, lr = Mlp((7,)), 0.3
    frozen = train(defense, data, STILL, network=network)
    weights = weights_of(frozen[1].state, "")
    draws = Draws(0, torch.arange(COUNT))
    rows = template_rows(data, 12, "random", draws.fork("interpolated epoch", 1), 0)
    images = data.images / 255
    entering, features = hidden(weights, images)
    templates = Templates.of(features[rows], data.labels[rows], 3, 4, rows)
    near = Neighbourhood(4, 2, "gaussian")
    scores = 10 * inductive(features, templates, near, torch.arange(COUNT)).float()
    assert frozen[1].loss == pytest.approx(float(F.cross_entropy(scores, data.labels)), rel=1e-5)

    residual = (scores.softmax(1) - F.one_hot(data.labels, 3)) / COUNT  # dL / d scores, one row per image
    upstream = (residual @ weights["network.4.weight"]) * (features > 0)
    moved = weights["buffer.0.weight"] - lr * upstream.T @ entering
    moving = Training(epochs=2, batch_size=COUNT, lr=lr, weight_decay=0.0, momentum=0.0, warmup_epochs=1)
    start = train(defense, data, STILL, network=network)[0].state
    after = train(defense, data, moving, state=start, network=network)[-1].state
    torch.testing.assert_close(weights_of(after, "buffer")["buffer.0.weight"], moved, rtol=1e-4, atol=1e-6)


@VARIANT
def test_every_variant_resumes_to_the_bit(settings: dict[str, Any]) -> None:
    training = Training(epochs=4, batch_size=20, lr=0.01, optimizer="adam", clip=5.0, ema=0.5, augment="crop")
    defense, data = WNLL(**SMALL | settings), pictures()
    straight = train(defense, data, training)
    for done in (1, 2, 3):
        resumed = train(defense, data, training, straight[done - 1].state)
        assert all(equal(a.state, b.state) for a, b in zip(straight[done:], resumed, strict=True))


@VARIANT
def test_every_variant_gives_a_gradient_to_every_image(settings: dict[str, Any]) -> None:
    """With each loss of its surface, also where all neighbours of an image are of its class."""
    defense, data = WNLL(**SMALL | settings), pictures()
    training = Training(epochs=12, batch_size=20, lr=0.05)
    state = train(defense, data, training, network=Mlp((16,)))[-1].state
    model, x = defense.deployed(state), (data.images / 255).requires_grad_()
    for name in defense.surface().losses:
        (gradient,) = torch.autograd.grad(LOSSES[name](model(x), data.labels).sum(), x)
        assert (gradient.flatten(1).abs().amax(1) > 0).all()
    (gradient,) = torch.autograd.grad(LOSSES["margin"](model.feature_guide(x), data.labels).sum(), x)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize(
    "network", [Mlp((7, 5)), Mlp(()), LeNet(), ConvNet(), Nin(), SmallCnn(), ResNet(8, 2)], ids=str
)
def test_the_buffer_stands_before_the_last_layer_of_any_network(network: Network) -> None:
    """Its logits are the network's own where the buffer lets everything through; no hook is left."""
    module, x = build(describe(network, 1, 16, 10)).eval(), torch.rand(3, 1, 16, 16)
    model = buffered(module, 1, 16, 1).eval()
    layer = model.buffer[0]
    width = layer.weight.shape[0]
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width).view(layer.weight.shape))
        layer.bias.zero_()
        logits, features = model.both(x)
    assert features.shape == (3, width)
    if not isinstance(network, Nin | Mlp):  # what enters is above zero already: ReLU lets it through
        torch.testing.assert_close(logits, module(x))
    assert all(not each._forward_hooks and not each._forward_pre_hooks for each in model.modules())


def test_what_several_templates_say_is_averaged() -> None:
    defense, data = WNLL(**SMALL, template=10, templates=3), pictures()
    state = train(defense, data, Training(epochs=1, batch_size=20), network=Mlp((7,)))[0].state
    assert isinstance(state["templates.features"], Tensor)
    assert state["templates.features"].shape == (3, 10, 7)
    model, (_, features) = defense.deployed(state), hidden(weights_of(state, ""), data.images / 255)
    near, expected = Neighbourhood(4, 2, "gaussian"), torch.zeros(COUNT, 3, dtype=torch.float64)
    for number in range(3):
        rows = template_rows(data, 10, "random", Draws(0, torch.arange(COUNT)), number)
        torch.testing.assert_close(state["templates.features"][number], features[rows])
        expected += inductive(features, Templates.of(features[rows], data.labels[rows], 3, 4), near, None) / 3
    torch.testing.assert_close(model(data.images / 255), 10 * expected.float())
    assert not is_stochastic(model)


def test_a_drawn_template_is_keyed_by_example_and_its_mean_is_the_average() -> None:
    settings, data = SMALL | {"template": 10, "templates": 3}, pictures()
    state = train(WNLL(**settings), data, Training(epochs=1, batch_size=20), network=Mlp((7,)))[0].state
    drawn, averaged, x = WNLL(**settings, use="drawn"), WNLL(**settings), data.images / 255
    model, draws = drawn.deployed(state), Draws(5, torch.arange(COUNT))
    assert is_stochastic(model)
    assert drawn.surface().draws == 20
    assert averaged.surface().draws == 1
    with drawing(model, draws):
        together = model(x)
    part = torch.tensor([30, 4, 17])
    with drawing(model, draws.select(part)):
        torch.testing.assert_close(model(x[part]), together[part])
    seen = []
    for turn in range(300):
        with drawing(model, draws.fork(turn)):
            seen.append(model(x))
    mean = torch.stack(seen).mean(0)
    torch.testing.assert_close(mean, averaged.deployed(state)(x), rtol=0, atol=1.2)  # scores are in 0..10
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(model(x), model(x))


def test_averaged_weights_are_deployed_with_the_templates_they_see() -> None:
    defense, data = WNLL(**SMALL), pictures()
    state = train(defense, data, Training(epochs=2, batch_size=20, ema=0.5), network=Mlp((7,)))[-1].state
    rows = template_rows(data, 20, "random", Draws(0, torch.arange(COUNT)), 0)
    _, features = hidden(tensors(state, "ema"), data.images[rows] / 255)
    assert isinstance(state["templates.features"], Tensor)
    torch.testing.assert_close(state["templates.features"][0], features)
    assert isinstance(defense.deployed(state).network, Buffered)


def left(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).float().mean())


def test_who_knows_the_interpolation_finds_at_least_what_the_linear_heads_gradient_does() -> None:
    """Digits, 300 images, seeds 0 to 2: 0.20 to 0.24 through the linear head, as the paper does, 0.20 to 0.23 along the
    smooth stand-in, 0.21 to 0.24 by the deployed gradient, which on its own, without leaning on that, leaves 0.25 to
    0.27.
    """
    data, x, y = digits()
    defense, threat, draws = WNLL(), Threat("linf", 0.15), Draws(0, torch.arange(300))
    state = train(defense, data, Training(epochs=10, batch_size=64, lr=0.05), network=Mlp((64,)))[-1].state
    model = defense.deployed(state)
    attacks = {
        "surrogate": PGD(20)(model.network, x, y, threat, draws),
        "margin": PGD(20, loss="margin")(model, x, y, threat, draws),
        "features": FeaturePGD(20)(model, x, y, threat, draws),
    }
    robust = {name: left(model, adversarial, y) for name, adversarial in attacks.items()}
    assert left(model, x, y) > 0.9
    assert robust["margin"] < robust["surrogate"] + 0.03
    assert min(robust["margin"], robust["features"]) <= robust["surrogate"]


def test_interpolation_learns_as_well_as_a_linear_layer_on_digits() -> None:
    data, x, y = digits()
    training = Training(epochs=8, batch_size=64, lr=0.05)
    found = {
        defense.name: left(defense.deployed(train(defense, data, training, network=Mlp((64,)))[-1].state), x, y)
        for defense in (WNLL(), Standard())
    }
    assert found["wnll"] > found["standard"] - 0.03


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": 42}, r"template: must be at most the number of training images, 41, got 42"),
        ({"template": 8, "k": 8}, r"k: must be below the number of images in a template, 8, got 8"),
        ({"k": 20}, r"k: must be below the number of images in a template, 20, got 20"),
        ({"k": 50, "sampling": "all"}, r"k: must be below the number of images in a template, 41, got 50"),
        ({"loops": 4}, r"loops: must be at most training\.epochs, 3, got 4"),
        ({"k": 0}, "k: must be a whole number >= 1, got 0"),
        ({"k": 7}, "sigma_rank: must be at most k, 7, got 8"),
        ({"sigma_rank": 0}, "sigma_rank: must be a whole number >= 1, got 0"),
        ({"template": 1}, "template: must be a whole number >= 2, got 1"),
        ({"templates": 0}, "templates: must be a whole number >= 1, got 0"),
        ({"weighting": "cubic"}, "weighting: must be one of gaussian, quartic, got 'cubic'"),
        ({"sampling": "some"}, "sampling: must be one of random, balanced, all, got 'some'"),
        ({"sampling": "all", "templates": 2}, "sampling: all is one template of all images; .*"),
        ({"use": "one"}, "use: must be one of averaged, drawn, got 'one'"),
        ({"mode": "deductive"}, r"mode: must be one of inductive, transductive, got 'deductive'.*"),
        ({"buffer": 0}, "interpolation_epochs: must be 0 where there is no buffer to train, got 1"),
        ({"interpolation_lr": 0.0}, "interpolation_lr: must be finite and > 0, got 0.0"),
    ],
)
def test_refuses_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        train(WNLL(**settings), pictures())


def test_refuses_training_images_of_one_class() -> None:
    data = Data(pictures().images, torch.zeros(COUNT, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match=r"^template: must hold two classes or more, got 20 images of class 0 alone$"):
        train(WNLL(), data)
