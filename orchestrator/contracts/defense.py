"""What every defense promises: training that goes on as if it had never stopped, and a model fit to be attacked."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from attacks.draws import Draws
from attacks.losses import LOSSES
from attacks.surface import Surface
from attacks.threat import Threat
from defenses.data import Data
from defenses.defense import Defense
from defenses.fit import TrainingDiverged
from defenses.networks.mlp import Mlp
from defenses.networks.registry import Network
from defenses.networks.resnet import ResNet
from defenses.standard import Standard
from defenses.state import Epoch, State
from defenses.training import Training
from orchestrator.contracts.claim import Broken, Claim, must

COUNT = 41
SHAPES = ((1, 8), (3, 12))  # channels, size
THREAT = Threat("linf", 0.05)
TRAINING = Training(epochs=3, batch_size=20, lr=0.05, threat=THREAT)


def pictures(channels: int = 1, size: int = 8) -> Data:
    """Noise of three brightnesses: what a few steps can learn."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 3
    noise = torch.randint(0, 150, (COUNT, channels, size, size), generator=generator)
    return Data((noise + 50 * labels[:, None, None, None]).clamp(max=255).to(torch.uint8), labels, 3)


def train(
    defense: Defense,
    data: Data,
    training: Training = TRAINING,
    state: State | None = None,
    network: Network | None = None,
    seed: int = 0,
) -> list[Epoch]:
    return list(defense.fit(network or ResNet(8, 2), data, training, Draws(seed, torch.arange(len(data))), state))


def equal(a: State, b: State) -> bool:
    return not difference(a, b)


def difference(a: State, b: State) -> str:
    """The first key in which two states differ; empty where they are equal to the bit."""
    if a.keys() != b.keys():
        return ", ".join(sorted(a.keys() ^ b.keys()))
    for key, value in a.items():
        other = b[key]
        is_same = torch.equal(value, other) if isinstance(value, Tensor) and isinstance(other, Tensor) else False
        if not (is_same or (not isinstance(value, Tensor) and not isinstance(other, Tensor) and value == other)):
            return key
    return ""


def gives_finite_epochs_whose_state_is_tensors_and_json(defense: Defense, channels: int, size: int) -> None:
    data = pictures(channels, size)
    images, labels = data.images.clone(), data.labels.clone()
    epochs = train(defense, data)
    must(len(epochs) == TRAINING.epochs, f"it yields {len(epochs)} times in {TRAINING.epochs} epochs")
    counted = [epoch.state.get("epoch") for epoch in epochs]
    must(counted == [1, 2, 3], f'state["epoch"] is {counted}, not [1, 2, 3]')
    for epoch in epochs:
        must(math.isfinite(epoch.loss), f"a loss is {epoch.loss}")
        must(0 < epoch.learning_rate <= TRAINING.lr, f"a learning rate is {epoch.learning_rate}, of {TRAINING.lr}")
    for key, value in epochs[-1].state.items():
        if isinstance(value, Tensor):
            must(not value.requires_grad, f"state[{key!r}] requires a gradient")
            must(value.is_contiguous(), f"state[{key!r}] is not contiguous")
        else:
            must(_is_json(value), f"state[{key!r}] is neither a tensor nor a JSON value: {value!r}")
    must(torch.equal(data.images, images) and torch.equal(data.labels, labels), "it changed the training data")


def goes_on_from_any_state_as_if_it_had_never_stopped(defense: Defense, channels: int, size: int) -> None:
    data = pictures(channels, size)
    with _generator_put_back():
        torch.manual_seed(1)
        straight = train(defense, data)
        for done in (1, 2):
            torch.manual_seed(2)
            kept = copy.deepcopy(straight[done - 1].state)
            resumed = train(defense, data, state=straight[done - 1].state)
            here = f"from the state of epoch {done}"
            losses, wanted = [epoch.loss for epoch in resumed], [epoch.loss for epoch in straight[done:]]
            must(losses == wanted, f"{here} the losses are {losses}, without a stop {wanted}")
            for a, b in zip(straight[done:], resumed, strict=True):
                must(equal(a.state, b.state), f"{here} state[{difference(a.state, b.state)!r}] differs")
            must(equal(straight[done - 1].state, kept), "it changed the state from which it went on")


def deployed_gives_logits_and_has_nothing_to_train(defense: Defense, channels: int, size: int) -> None:
    state = train(defense, pictures(channels, size), dataclasses.replace(TRAINING, epochs=1))[0].state
    before = torch.get_rng_state()
    model = defense.deployed(state)
    must(torch.equal(before, torch.get_rng_state()), "it draws from torch's global generator")
    x = torch.rand(5, channels, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = model(x)
    must(logits.shape == (5, 3), f"5 images of 3 classes give {list(logits.shape)}")
    must(logits.dtype == torch.float32, f"logits are {logits.dtype}")
    must(not any(module.training for module in model.modules()), "a layer is in training mode")
    must(not any(parameter.requires_grad for parameter in model.parameters()), "a parameter requires a gradient")
    if defense.surface().backward is None:
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x, allow_unused=True, materialize_grads=True)
        must(gradient.abs().max() > 0, "no gradient reaches the image: surface() must give a stand-in, backward")


def draws_alone_decide(defense: Defense) -> None:
    data, training = pictures(), dataclasses.replace(TRAINING, epochs=1)
    with _generator_put_back():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = train(defense, data, training)[0].state
        must(torch.equal(before, torch.get_rng_state()), "it leaves torch's global generator moved")
        torch.manual_seed(2)
        again = train(defense, data, training)[0].state
    must(equal(first, again), f"state[{difference(first, again)!r}] follows torch's global seed, not the draws")
    must(not equal(first, train(defense, data, training, seed=1)[0].state), "another seed trains the same weights")


def its_surface_and_facts_are_sane(defense: Defense) -> None:
    must(isinstance(defense.uses_threat, bool), f"uses_threat is {defense.uses_threat!r}, not true or false")
    ready = defense.ready_epoch
    must(isinstance(ready, int) and ready >= 0, f"ready_epoch is {ready!r}, not a whole number >= 0")
    surface = defense.surface()
    must(isinstance(surface, Surface), f"surface() gives {type(surface).__name__}, not an attacks.surface.Surface")
    must(surface.draws >= 1, f"surface().draws is {surface.draws}")
    must(surface.losses, "surface().losses is empty")
    must(set(surface.losses) <= LOSSES.keys(), f"surface().losses are {surface.losses}; known are {', '.join(LOSSES)}")


def a_threat_that_it_does_not_use_changes_nothing(defense: Defense) -> None:
    must(defense.uses_threat or _is_one_training(defense), "uses_threat is False, and another threat trains otherwise")


def a_threat_that_it_uses_changes_something(defense: Defense) -> None:
    is_vain = defense.uses_threat and _is_one_training(defense)
    must(not is_vain, "uses_threat is True, and another threat trains the same: trials are not shared between threats")


def at_its_neutral_settings_is_standard_training(defense: Defense) -> None:
    if defense.neutral is None:
        return
    neutral: Any = type(defense)(**defense.neutral)
    for ours, theirs in zip(train(neutral, pictures()), train(Standard(), pictures()), strict=True):
        must(ours.loss == theirs.loss, f"at {defense.neutral} the loss is {ours.loss}, of standard {theirs.loss}")
        must(equal(ours.state, theirs.state), f"state[{difference(ours.state, theirs.state)!r}] differs")


def diverging_is_said(defense: Defense) -> None:
    training = Training(epochs=20, batch_size=20, lr=1e6, threat=THREAT)
    try:
        train(defense, pictures(), training, network=Mlp((30,)))
    except TrainingDiverged as error:
        said = str(error)
        is_placed = re.search(r"not finite: epoch \d+, (batch \d+|after its last batch)$", said)
        must(is_placed, f"it does not say where: {said}")
        return
    raise Broken("20 epochs at a rate of 1e6 raise no defenses.fit.TrainingDiverged")


def learns_in_every_precision_and_with_averaging(defense: Defense, most: float = 0.8) -> None:
    training = Training(epochs=6, batch_size=20, lr=0.05, precision="bf16", ema=0.8, threat=THREAT)
    epochs = train(defense, pictures(), training, network=Mlp((30,)))
    first, last = epochs[0].loss, epochs[-1].loss
    must(last < most * first, f"in 6 epochs the loss goes from {first:.3f} to {last:.3f}")


_CASES = tuple({"channels": channels, "size": size} for channels, size in SHAPES)
CLAIMS = (
    Claim(its_surface_and_facts_are_sane),
    Claim(gives_finite_epochs_whose_state_is_tensors_and_json, _CASES),
    Claim(goes_on_from_any_state_as_if_it_had_never_stopped, _CASES),
    Claim(deployed_gives_logits_and_has_nothing_to_train, _CASES),
    Claim(draws_alone_decide),
    Claim(a_threat_that_it_does_not_use_changes_nothing),
    Claim(at_its_neutral_settings_is_standard_training),
    Claim(diverging_is_said),
    Claim(learns_in_every_precision_and_with_averaging, ({"most": 1.0},)),
    Claim(a_threat_that_it_uses_changes_something, is_law=False),
)


def _is_one_training(defense: Defense) -> bool:
    """Whether two threats train the same weights."""
    one, other = (
        train(defense, pictures(), Training(epochs=1, batch_size=20, threat=threat))[0].state
        for threat in (THREAT, Threat("l2", 0.5))
    )
    return equal(one, other)


@contextmanager
def _generator_put_back() -> Iterator[None]:
    kept = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(kept)


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
