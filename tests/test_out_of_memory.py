"""Claims about batches that do not fit: the same step in parts, from where it was, and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_fit import COUNT, Dropping, cross_entropy, equal, pictures, train
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.threat import Threat
from defenses import DEFENSES, TrainingOutOfMemory
from defenses.fit import Batch, descend, fit
from defenses.learner import Learner, new_learner
from defenses.microbatches import Microbatches
from defenses.networks import Mlp, Network, ResNet, registry
from defenses.out_of_memory import is_out_of_memory
from defenses.state import Epoch, tensors
from defenses.training import Training

GPU_WORDS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB\nSee documentation"


def of_the_gpu() -> None:
    raise torch.OutOfMemoryError(GPU_WORDS)


def of_the_cpu() -> None:
    torch.empty(2**50)  # a real refusal of the allocator: a petabyte


class Narrow(nn.Module):
    """A linear network with room for a few images at a time."""

    most = 10**9

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * size * size, classes)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > Narrow.most:
            of_the_gpu()
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def plugin(monkeypatch: pytest.MonkeyPatch, module: type[nn.Module]) -> Network:
    """A network that is such a module: known to the table, without a normalising layer."""

    class Plugin(Mlp):
        name = module.__name__

        def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
            return module(channels, size, classes)

    monkeypatch.setitem(registry.NETWORKS, module.__name__, Plugin)
    return Plugin()


def fitting(most: int, fault: Callable[[], None] = of_the_gpu) -> Callable[[nn.Module, Batch], Tensor]:
    """Cross-entropy with room for so many images; what does not fit has run through the model first."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        value = cross_entropy(model, batch)
        if len(batch.y) > most:
            fault()
        return value

    return loss


def assert_close(ours: Epoch, theirs: Epoch) -> None:
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    for key, value in tensors(theirs.state, "model").items():
        assert torch.allclose(tensors(ours.state, "model")[key], value, rtol=1e-4, atol=1e-6), key


@pytest.mark.parametrize("fault", [of_the_gpu, of_the_cpu])
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "lr": 0.05, "nesterov": True, "clip": 0.5},
        {"optimizer": "adam", "lr": 0.01, "ema": 0.9, "augment": "crop_flip"},
    ],
    ids=["sgd", "adam"],
)
def test_parts_add_up_to_the_step_of_the_whole_batch(settings: dict[str, Any], fault: Callable[[], None]) -> None:
    """Batches of 16, 16 and 13 in parts of at most 4: each example counts as in the whole batch."""
    training = Training(epochs=3, batch_size=16, weight_decay=1e-3, **settings)
    whole, parts = train(training), train(training, loss=fitting(5, fault))
    assert [epoch.microbatches for epoch in whole] == [1, 1, 1]
    assert [epoch.microbatches for epoch in parts] == [4, 4, 4]
    for ours, theirs in zip(parts, whole, strict=True):
        assert_close(ours, theirs)
    assert all(epoch.remarks == () for epoch in parts)  # nothing in this network looks at more than one image


def test_parts_of_the_last_smaller_batch_are_weighted_by_their_size() -> None:
    """By hand: 7 and 6 images of a batch of 13, after 16 and 16 in halves."""
    training = Training(epochs=1, batch_size=16, lr=0.05, momentum=0.0, weight_decay=0.0, schedule="constant")
    data, draws = pictures(), Draws(0, torch.arange(COUNT))
    model = new_learner(Mlp((6,)), data, training, draws).model
    order = torch.randperm(COUNT, generator=draws.generator("order", 0))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for batch in order.split(16):
        optimizer.zero_grad()
        for part in batch.split([8, 8] if len(batch) == 16 else [7, 6]):
            logits = model(data.images[part].float() / 255)
            torch.autograd.backward(F.cross_entropy(logits, data.labels[part]) * len(part) / len(batch))
        optimizer.step()
    (epoch,) = train(training, loss=fitting(8))
    for ours, theirs in zip(tensors(epoch.state, "model").values(), model.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_parts_show_each_example_once_with_its_own_draws() -> None:
    shown: list[Batch] = []

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        if len(batch.y) > 6:
            of_the_gpu()
        shown.append(batch)
        return cross_entropy(model, batch)

    data = pictures()
    train(Training(epochs=1, batch_size=16), data=data, loss=watched)
    assert [(batch.number, len(batch.y)) for batch in shown] == [(0, 4)] * 4 + [(1, 4)] * 4 + [
        (2, n) for n in (4, 3, 3, 3)
    ]
    ids = torch.cat([batch.draws.example_ids for batch in shown])
    assert torch.equal(ids.sort().values, torch.arange(COUNT))
    assert all(torch.equal(batch.y, data.labels[batch.draws.example_ids]) for batch in shown)
    assert len({batch.draws.seed for batch in shown}) == 1


@pytest.mark.parametrize("kind", ["mlp", "batch norm", "dropout"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_failed_step_leaves_nothing_behind(kind: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In epoch 2, after two steps of it: to the bit what comes of beginning that epoch in halves."""
    network = {"mlp": Mlp((6,)), "batch norm": ResNet(8, 2), "dropout": plugin(monkeypatch, Dropping)}[kind]
    training = Training(epochs=3, batch_size=16, optimizer=optimizer, lr=0.05, ema=0.9, augment="crop", clip=1.0)

    def failing(model: nn.Module, batch: Batch) -> Tensor:
        value = cross_entropy(model, batch)
        if batch.epoch == 1 and batch.number == 2 and len(batch.y) > 8:
            torch.autograd.backward(value)  # half a gradient, and moved statistics
            of_the_gpu()
        return value

    failed = train(training, network=network, loss=failing)
    in_halves = train(training, {**failed[0].state, "microbatches": 2}, network)
    assert [epoch.microbatches for epoch in failed] == [1, 2, 2]
    assert [epoch.loss for epoch in failed[1:]] == [epoch.loss for epoch in in_halves]
    assert all(equal(a.state, b.state) for a, b in zip(failed[1:], in_halves, strict=True))


def test_training_in_parts_resumes_to_the_bit() -> None:
    training = Training(epochs=4, batch_size=16, lr=0.05, ema=0.9, augment="crop_flip")
    straight = train(training, network=ResNet(8, 2), loss=fitting(8))
    resumed = train(training, straight[1].state, ResNet(8, 2))  # no fault any more: the state knows of the parts
    assert [epoch.microbatches for epoch in resumed] == [2, 2]
    assert all(equal(a.state, b.state) for a, b in zip(straight[2:], resumed, strict=True))
    assert all(a.remarks == b.remarks != () for a, b in zip(straight[2:], resumed, strict=True))


def test_a_state_of_before_parts_were_counted_goes_on() -> None:
    training = Training(epochs=2, batch_size=16)
    straight = train(training)
    old = {key: value for key, value in straight[0].state.items() if key != "microbatches"}
    assert equal(train(training, old)[0].state, straight[1].state)


def test_a_step_of_a_defenses_own_is_done_in_parts_too() -> None:
    """Two optimizers, two gradients of a batch and a term beside the loss, as a defense may have it."""

    def run(most: int) -> Epoch:
        training, data = Training(epochs=2, batch_size=16), pictures()
        draws = Draws(0, torch.arange(COUNT))
        learner = new_learner(Mlp((6,)), data, training, draws)
        scale = nn.Linear(1, 1, bias=False)
        nn.init.ones_(scale.weight)
        optimizer = torch.optim.SGD(scale.parameters(), 0.1)
        both = Learner(learner.network, {**learner.modules, "scale": scale}, {**learner.optimizers, "scale": optimizer})

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            if len(batch.y) > most:
                of_the_gpu()
            return F.cross_entropy(scale(model(batch.x)[:, :, None])[:, :, 0], batch.y)

        def step(trained: Learner, given: Any, batch: Batch, settings: Training) -> Tensor:
            optimizer.zero_grad()
            value = given(trained.model, batch)
            torch.autograd.backward(3 * value + scale.weight.square().sum())
            optimizer.step()
            return descend(trained, given, batch, settings)

        return list(fit(both, loss, data, training, draws, step=step))[-1]

    parts, whole = run(4), run(99)
    assert parts.microbatches == 4
    assert_close(parts, whole)
    assert torch.allclose(tensors(parts.state, "scale")["weight"], tensors(whole.state, "scale")["weight"], rtol=1e-5)
    assert not torch.equal(tensors(whole.state, "scale")["weight"], torch.ones(1, 1))


def test_batch_norm_is_not_the_same_in_parts_and_that_is_said() -> None:
    (epoch,) = train(Training(epochs=1, batch_size=16), network=ResNet(8, 2), loss=fitting(4))
    assert epoch.microbatches == 4
    (remark,) = epoch.remarks
    assert remark.startswith("batch norm normalised by the statistics of 4 images at a time instead of 16")


@pytest.mark.parametrize(("network", "least"), [(ResNet(8, 2), 2), (Mlp((6,)), 1)], ids=["batch norm", "none"])
def test_what_fits_in_no_parts_ends_in_one_sentence(network: Network, least: int) -> None:
    sizes: list[int] = []

    def never(model: nn.Module, batch: Batch) -> Tensor:
        sizes.append(len(batch.y))
        of_the_gpu()
        raise AssertionError

    with pytest.raises(TrainingOutOfMemory) as raised:
        train(Training(epochs=1, batch_size=16), network=network, loss=never)
    assert sizes == [size for size in (16, 8, 4, 2, 1) if size >= least]
    assert str(raised.value) == (
        f"out of memory on cpu in epoch 1, with batches of 16 images in {16 // least} parts of at most {least}, which "
        "cannot be smaller: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB"
    )


def test_any_other_error_is_not_taken_for_a_lack_of_memory() -> None:
    tried: list[int] = []

    def broken(model: nn.Module, batch: Batch) -> Tensor:
        tried.append(len(batch.y))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        train(Training(epochs=1, batch_size=16), loss=broken)
    assert tried == [16]
    assert not is_out_of_memory(MemoryError("not enough memory"))  # Python's own, which no smaller batch would mend


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_parts_work_in_either_precision(precision: str) -> None:
    training = Training(epochs=2, batch_size=16, precision=precision, lr=0.05)
    whole, parts = train(training)[-1], train(training, loss=fitting(8))[-1]
    assert parts.loss == pytest.approx(whole.loss, rel=1e-2 if precision == "bf16" else 1e-5)


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("whole", [2, 3, 16, 45, 64, 100])
def test_every_division_covers_the_batch_evenly(whole: int, least: int) -> None:
    parts: Microbatches | None = Microbatches(whole, least)
    counts = []
    while parts is not None:
        counts.append(parts.count)
        for images in range(least, whole + 2):  # the last batch may have one more
            sizes = parts.sizes(images)
            assert sum(sizes) == images
            assert min(sizes) >= least
            assert max(sizes) - min(sizes) <= 1
            assert len(sizes) == 1 or parts.count > 1
            assert max(sizes) <= parts.most or max(sizes) < 2 * least or parts.count == 1
        parts = parts.halved()
    assert counts == [2**power for power in range(len(counts))]
    assert Microbatches(whole, least, counts[-1]).most < 2 * least or whole < 2 * least


@pytest.mark.parametrize("name", list(DEFENSES))
def test_every_defense_trains_in_parts_as_it_does_on_whole_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(epochs=2, batch_size=20, lr=0.02, threat=Threat("linf", 0.05))
    data, defense = pictures(), DEFENSES[name]()
    network, found = plugin(monkeypatch, Narrow), []
    for most in (10**9, 5):
        monkeypatch.setattr(Narrow, "most", most)
        found.append(list(defense.fit(network, data, training, Draws(0, torch.arange(COUNT))))[-1])
    assert [epoch.microbatches for epoch in found] == [1, 4]
    assert_close(found[1], found[0])
    assert json.loads(json.dumps(found[1].state["microbatches"])) == 4
