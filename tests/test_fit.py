"""The shared loop: what it computes, what it draws from, how it stops and goes on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from defenses.data import Data
from defenses.fit import Batch, TrainingDiverged, descend, fit
from defenses.learner import Learner, new_learner
from defenses.networks import Mlp, Network, ResNet, registry
from defenses.state import Epoch, State, deployed, tensors
from defenses.training import Training

COUNT = 45


def pictures(count: int = COUNT, channels: int = 1, size: int = 8, classes: int = 3) -> Data:
    """Noise, brighter by class: learnable."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 150, (count, channels, size, size), generator=generator)
    return Data((noise + 50 * labels[:, None, None, None]).clamp(max=255).to(torch.uint8), labels, classes)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.x).float(), batch.y)


def train(
    training: Training,
    state: State | None = None,
    network: Network | None = None,
    data: Data | None = None,
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy,
    seed: int = 0,
) -> list[Epoch]:
    data = data or pictures()
    draws = Draws(seed, torch.arange(len(data)))
    return list(fit(new_learner(network or Mlp((6,)), data, training, draws), loss, data, training, draws, state))


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key] for key, value in a.items()
    )


class Dropping(nn.Module):
    """Dropout draws from torch's global generator."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels * size * size, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


@pytest.fixture
def dropping(monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network of a plugin: known to the table, without a normalising layer."""

    class Plugin(Mlp):
        name = "dropping"

        def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
            return Dropping(channels, size, classes)

    monkeypatch.setitem(registry.NETWORKS, "dropping", Plugin)
    return Plugin()


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "lr": 0.05, "nesterov": True},
    {"optimizer": "adam", "lr": 0.01},
]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=["sgd", "adam"])
def test_follows_a_plain_loop(settings: dict[str, Any]) -> None:
    """An independent loop with torch's own optimizer and schedule, on the loop's own order."""
    training = Training(epochs=3, batch_size=16, schedule="linear", weight_decay=1e-3, **settings)
    data, draws = pictures(), Draws(0, torch.arange(COUNT))
    learner = new_learner(Mlp((6,)), data, training, draws)
    model = copy.deepcopy(learner.model)
    shown: list[Batch] = []

    def watched(trained: nn.Module, batch: Batch) -> Tensor:
        shown.append(batch)
        return cross_entropy(trained, batch)

    losses = [epoch.loss for epoch in fit(learner, watched, data, training, draws)]
    optimizer: torch.optim.Optimizer
    if settings["optimizer"] == "adam":
        optimizer = torch.optim.Adam(model.parameters(), 0.01, weight_decay=1e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=1e-3, nesterov=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=9)
    expected = torch.zeros(3)
    for number, batch in enumerate(shown):
        optimizer.zero_grad()
        value = F.cross_entropy(model(batch.x), batch.y)
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()
        expected[number // 3] += value.detach() * len(batch.y) / COUNT
    assert torch.allclose(torch.tensor(losses), expected, rtol=1e-5)
    for ours, theirs in zip(learner.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_each_epoch_shows_every_row_once_in_a_new_order_with_its_label_and_id() -> None:
    data = pictures()
    shown: list[Batch] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        shown.append(batch)
        return cross_entropy(model, batch)

    train(Training(epochs=2, batch_size=16), data=data, loss=watched)
    assert [(batch.epoch, batch.number, len(batch.y)) for batch in shown] == [
        (epoch, number, size) for epoch in (0, 1) for number, size in enumerate((16, 16, 13))
    ]
    ids = torch.cat([batch.draws.example_ids for batch in shown]).view(2, COUNT)
    assert torch.equal(ids.sort(1).values, torch.arange(COUNT).expand(2, -1))
    assert not torch.equal(ids[0], ids[1])
    for batch in shown:
        assert torch.equal(batch.x, data.images[batch.draws.example_ids].float() / 255)
        assert torch.equal(batch.y, data.labels[batch.draws.example_ids])
    assert len({batch.draws.seed for batch in shown}) == 2  # one source per epoch


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", ["mlp", "batch norm", "dropout"])
def test_resumes_in_mid_training_to_the_bit(settings: dict[str, Any], kind: str, dropping: Network) -> None:
    network = {"mlp": Mlp((6,)), "batch norm": ResNet(8, 2), "dropout": dropping}[kind]
    training = Training(epochs=4, batch_size=16, warmup_epochs=1, ema=0.9, augment="crop_flip", clip=1.0, **settings)
    straight = train(training, network=network)
    torch.manual_seed(99)  # nothing may depend on it
    resumed = train(training, straight[1].state, network)
    assert [epoch.state["epoch"] for epoch in straight] == [1, 2, 3, 4]
    assert [(epoch.loss, epoch.learning_rate) for epoch in straight[2:]] == [
        (epoch.loss, epoch.learning_rate) for epoch in resumed
    ]
    assert all(equal(a.state, b.state) for a, b in zip(straight[2:], resumed, strict=True))
    assert train(training, straight[3].state, network) == []


def test_states_stay_as_they_were_yielded() -> None:
    training = Training(epochs=3, batch_size=16, ema=0.9)
    data, draws = pictures(), Draws(0, torch.arange(COUNT))
    epochs = fit(new_learner(ResNet(8, 2), data, training, draws), cross_entropy, data, training, draws)
    first = next(epochs).state
    kept = copy.deepcopy(first)
    list(epochs)
    train(training, first, ResNet(8, 2))
    assert equal(first, kept)
    assert all(value.is_contiguous() for value in first.values() if isinstance(value, Tensor))


def test_draws_alone_decide_and_the_global_generator_stays(dropping: Network) -> None:
    training = Training(epochs=2, batch_size=16, augment="crop_flip")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(training, network=dropping)[-1].state
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert equal(first, train(training, network=dropping)[-1].state)
    assert not equal(first, train(training, network=dropping, seed=1)[-1].state)


def test_layers_draw_anew_in_each_batch_and_epoch() -> None:
    drawn: list[float] = []

    def drawing(model: nn.Module, batch: Batch) -> Tensor:
        drawn.append(float(torch.rand(())))  # as dropout does
        return cross_entropy(model, batch)

    train(Training(epochs=3, batch_size=16), loss=drawing)
    assert len(set(drawn)) == len(drawn) == 9


def test_augmentation_is_drawn_anew_in_each_epoch() -> None:
    shown: list[Tensor] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        shown.append(batch.x[batch.draws.example_ids.argsort()])
        return cross_entropy(model, batch)

    train(Training(epochs=3, batch_size=COUNT, augment="crop"), loss=watched)
    is_same = [(a == b).flatten(1).all(1).float().mean() for a, b in ((shown[0], shown[1]), (shown[1], shown[2]))]
    assert max(is_same) < 0.5  # one window of nine is drawn twice by chance


def test_a_generator_between_epochs_leaves_the_global_generator_to_the_caller() -> None:
    data, training = pictures(), Training(epochs=2, batch_size=16)
    draws = Draws(0, torch.arange(COUNT))
    epochs = fit(new_learner(Mlp((6,)), data, training, draws), cross_entropy, data, training, draws)
    torch.manual_seed(5)
    next(epochs)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(("count", "sizes"), [(33, [16, 17]), (34, [16, 16, 2]), (17, [17]), (16, [16]), (2, [2])])
def test_no_batch_of_one(count: int, sizes: list[int]) -> None:
    """Batch norm after global pooling would fail on one image."""
    seen: list[int] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        seen.append(len(batch.y))
        return cross_entropy(model, batch)

    train(Training(epochs=1, batch_size=16), network=ResNet(8, 2), data=pictures(count), loss=watched)
    assert seen == sizes


def test_loss_is_the_mean_over_examples_not_batches() -> None:
    def number(model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(model, batch) * 0 + batch.number

    (epoch,) = train(Training(epochs=1, batch_size=16), loss=number)
    assert epoch.loss == pytest.approx((16 * 0 + 16 * 1 + 13 * 2) / COUNT)


def test_diverged_loss_names_epoch_and_batch() -> None:
    """Batch 60 of epoch 2: beyond one look at the losses, in a later epoch."""

    def breaking(model: nn.Module, batch: Batch) -> Tensor:
        is_broken = batch.epoch == 1 and batch.number >= 59
        return cross_entropy(model, batch) * (math.nan if is_broken else 1.0)

    with pytest.raises(TrainingDiverged, match=r"^loss is not finite: epoch 2, batch 60$"):
        train(Training(epochs=3, batch_size=2), data=pictures(130), loss=breaking)


def test_diverged_weights_are_never_yielded() -> None:
    """The last gradient of an epoch is infinite: its loss was finite, the weights no longer are."""

    def breaking(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.x)
        if batch.number == 2:
            logits.register_hook(lambda gradient: gradient * math.inf)
        return F.cross_entropy(logits, batch.y)

    with pytest.raises(TrainingDiverged, match=r"^weights are not finite: epoch 1, after its last batch$"):
        train(Training(epochs=2, batch_size=16), loss=breaking)


def test_average_is_the_recursion_and_is_deployed() -> None:
    """Full batches: one step per epoch, so the states hold every value that was averaged."""
    training = Training(epochs=4, batch_size=COUNT, ema=0.15, lr=0.05)
    data, draws = pictures(), Draws(0, torch.arange(COUNT))
    learner = new_learner(ResNet(8, 2), data, training, draws)
    average = {key: value.clone() for key, value in learner.model.state_dict().items()}
    for step, epoch in enumerate(fit(learner, cross_entropy, data, training, draws)):
        decay = min(0.15, (1 + step) / (10 + step))
        for key, value in tensors(epoch.state, "model").items():
            mixed = decay * average[key] + (1 - decay) * value
            average[key] = mixed if value.is_floating_point() else value
        for key, value in tensors(epoch.state, "ema").items():
            assert torch.allclose(value, average[key].to(value.dtype), atol=1e-6), key
    state = {key: value.clone() for key, value in deployed(epoch.state).state_dict().items()}
    assert all(torch.equal(state[key], value) for key, value in tensors(epoch.state, "ema").items())
    assert not torch.equal(state["conv1.weight"], tensors(epoch.state, "model")["conv1.weight"])


def test_clip_bounds_the_step() -> None:
    def step_length(clip: float) -> float:
        training = Training(epochs=1, batch_size=COUNT, lr=0.5, momentum=0.0, weight_decay=0.0, clip=clip)
        data, draws = pictures(), Draws(0, torch.arange(COUNT))
        learner = new_learner(Mlp((6,)), data, training, draws)
        before = torch.cat([p.detach().flatten() for p in learner.model.parameters()])
        list(fit(learner, cross_entropy, data, training, draws))
        after = torch.cat([p.detach().flatten() for p in learner.model.parameters()])
        return float((after - before).norm())

    free = step_length(0.0)
    assert free > 0.02
    assert step_length(0.01) == pytest.approx(0.005, rel=1e-3)
    assert step_length(100.0) == pytest.approx(free, rel=1e-5)


def test_bf16_computes_in_bf16_and_keeps_fp32_weights() -> None:
    seen: list[torch.dtype] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.x)
        seen.append(logits.dtype)
        return F.cross_entropy(logits.float(), batch.y)

    epochs = train(Training(epochs=3, batch_size=16, precision="bf16"), loss=watched)
    assert set(seen) == {torch.bfloat16}
    assert tensors(epochs[-1].state, "model")["2.weight"].dtype == torch.float32
    assert epochs[-1].loss < epochs[0].loss
    assert deployed(epochs[-1].state)(torch.rand(2, 1, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "step"}, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({"schedule": "linear"}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * done / 8)) / 2 for done in range(8)]),
        ({"schedule": "linear", "warmup_epochs": 2}, [1 / 4, 2 / 4, 3 / 4, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
    ],
)
def test_rates_of_four_epochs_of_two_batches(settings: dict[str, Any], rates: list[float]) -> None:
    seen: list[float] = []

    def watching(learner: Learner, loss: Any, batch: Batch, training: Training) -> Tensor:
        seen.append(learner.learning_rate)
        return descend(learner, loss, batch, training)

    training, data = Training(epochs=4, batch_size=23, lr=0.2, **settings), pictures()
    draws = Draws(0, torch.arange(COUNT))
    learner = new_learner(Mlp((6,)), data, training, draws)
    epochs = list(fit(learner, cross_entropy, data, training, draws, step=watching))
    assert seen == pytest.approx([0.2 * rate for rate in rates])
    assert [epoch.learning_rate for epoch in epochs] == seen[1::2]


def test_a_defense_may_add_modules_with_optimizers_of_their_own() -> None:
    """As prototypes or learned noise do: in the state, scheduled, resumed."""
    training, data = Training(epochs=4, batch_size=16, schedule="linear"), pictures()
    draws = Draws(0, torch.arange(COUNT))

    def run(state: State | None = None) -> list[Epoch]:
        learner = new_learner(Mlp((6,)), data, training, draws)
        scale = nn.Linear(1, 1)
        nn.init.ones_(scale.weight)
        nn.init.zeros_(scale.bias)
        optimizer = torch.optim.SGD(scale.parameters(), 1e-3, momentum=0.5)
        both = Learner(learner.network, {**learner.modules, "scale": scale}, {**learner.optimizers, "scale": optimizer})

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            return F.cross_entropy(scale(model(batch.x)[:, :, None])[:, :, 0], batch.y)

        return list(fit(both, loss, data, training, draws, state))

    straight = run()
    assert {"scale.weight", "optimizer.scale.0.momentum_buffer", "model.2.weight"} <= straight[0].state.keys()
    assert not torch.equal(tensors(straight[0].state, "scale")["weight"], torch.ones(1, 1))
    assert equal(run(straight[1].state)[-1].state, straight[-1].state)


def test_normalisation_is_that_of_the_training_data() -> None:
    data = pictures(channels=3, size=9)
    model = deployed(train(Training(epochs=1, batch_size=16), data=data)[0].state)
    pixels = data.images.double() / 255
    normalised = model.get_submodule("0")(pixels.float())
    assert torch.allclose(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(normalised.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    flat = Data(torch.full((4, 1, 8, 8), 7, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), 2)
    assert [float(value) for value in flat.mean_and_std()] == pytest.approx([7 / 255, 1 / 255])


def test_training_data_is_left_alone() -> None:
    data = pictures()
    images, labels = data.images.clone(), data.labels.clone()
    train(Training(epochs=2, batch_size=16, augment="crop_flip"), data=data)
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)


def test_a_state_of_something_else_is_refused() -> None:
    training = Training(epochs=2, batch_size=16)
    state = train(training)[0].state
    with pytest.raises(ValueError, match=r"^state: must be of network .*'widths': \[7\].*, got one of .*\[6\]"):
        train(training, state, Mlp((7,)))
    with pytest.raises(ValueError, match=r"^ema: must be on or off as in the state"):
        train(Training(epochs=2, batch_size=16, ema=0.9), state)
    data, few = pictures(), Draws(0, torch.arange(3))
    learner = new_learner(Mlp((6,)), data, training, few)
    with pytest.raises(ValueError, match=r"^draws: must have one example id per image, 45, got 3$"):
        fit(learner, cross_entropy, data, training, few)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 0, "an integer from 1 to 100000"),
        ("epochs", 2.5, "an integer from 1 to 100000"),
        ("epochs", 10**6, "an integer from 1 to 100000"),
        ("batch_size", 1, "an integer >= 2"),
        ("warmup_epochs", 30, "an integer from 0 to 29"),
        ("optimizer", "lion", "one of sgd, adam"),
        ("schedule", "cyclic", "one of cosine, constant, step, linear"),
        ("augment", "cutout", "one of none, crop, flip, crop_flip"),
        ("precision", "fp16", "one of fp32, bf16"),
        ("keep", "first", "one of best, last"),
        ("lr", 0.0, "finite and > 0"),
        ("lr", math.nan, "finite and > 0"),
        ("lr", "fast", "finite and > 0"),
        ("momentum", 1.0, r"in \[0, 1\)"),
        ("weight_decay", -1e-4, "finite and >= 0"),
        ("ema", 1.0, r"in \[0, 1\)"),
        ("clip", math.inf, "finite and >= 0"),
    ],
)
def test_training_refuses_a_setting_out_of_range(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: must be {allowed}, got {value!r}$"):
        Training(**{field: value})


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^nesterov: must be false where momentum is 0, got True$"):
        Training(nesterov=True, momentum=0.0)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (
            torch.zeros(4, 1, 8, 8),
            torch.zeros(4).long(),
            2,
            r"images: must be uint8 .*got torch.float32",
        ),
        (torch.zeros(4, 1, 8, 9).byte(), torch.zeros(4).long(), 2, r"images: must be .*got torch.uint8 \[4, 1, 8, 9\]"),
        (torch.zeros(1, 1, 8, 8).byte(), torch.zeros(1).long(), 2, r"images: must be uint8 \[N >= 2,"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.zeros(3).long(), 2, r"labels: must be int64 \[4\].*int64 \[3\]"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.zeros(4), 2, r"labels: must be int64 \[4\].*float32 \[4\]"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.zeros(4).long(), 1, r"classes: must be >= 2, got 1"),
        (torch.zeros(4, 1, 8, 8).byte(), torch.arange(4), 3, r"labels: must be in 0\.\.2, got 0\.\.3"),
    ],
)
def test_data_refuses_what_cannot_be_trained_on(images: Tensor, labels: Tensor, classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}"):
        Data(images, labels, classes)
