"""What is timed: a batch of training, an attack, the scoring around it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks import Draws, Surface, Threat
from attacks.surface import knowing
from defenses import Data
from defenses.state import State
from orchestrator.attack_passes import MOST_CALLS, most_passes
from orchestrator.cascade import Stage
from orchestrator.eval_mode import in_eval_mode
from orchestrator.evaluation import evaluate_robustness
from orchestrator.passes import counted
from orchestrator.plan import Plan

_HARMLESS = 1e-3  # of eps, at which nothing is fooled and every restart runs
_LONG = 10_000  # epochs of a training that is only timed
_SLOW = 1e-3  # a rate at which no training that is only timed diverges
_LEAST = 3  # passes of an attack, whatever they take
_FEW = 2  # batches of an epoch that warms up


@dataclass(frozen=True)
class Images:
    """Images uint8 [N, C, H, W] and labels for timing, and how many training images an epoch will have."""

    images: Tensor
    labels: Tensor
    classes: int
    train: int
    load: float
    remark: str = ""


@dataclass(frozen=True)
class Clock:
    """Seconds that work takes on a device, which may go on after a call has returned."""

    device: str

    def time(self, work: Callable[[], Any]) -> float:
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def train(plan: Plan, images: Images, clock: Clock, seconds: float) -> tuple[float, State]:
    """Seconds of a batch by the defense's own `fit`, and the state reached: past the epochs before it is ready."""
    defense, network, training = plan.make_defense(), plan.make_network(), plan.make_training()
    training = replace(training, epochs=_LONG, lr=min(training.lr, _SLOW))
    last: list[State] = []

    def fit(batches: int, state: State | None) -> Iterator[float]:
        rows = slice(0, min(len(images.labels), batches * training.batch_size))
        labels = images.labels[rows].to(clock.device)
        data = Data(images.images[rows].to(clock.device), labels, images.classes)
        draws = Draws(0, torch.arange(len(labels))).fork("training")
        epochs = defense.fit(network, data, training, draws, state)
        while True:
            took = clock.time(lambda: last.__setitem__(slice(None), [next(epochs).state]))
            yield took / -(-len(labels) // training.batch_size)

    deadline = time.perf_counter() + seconds
    warming = fit(_FEW, None)
    per_batch = next(warming)
    for _ in range(defense.ready_epoch + 1):
        per_batch = next(warming)
        if time.perf_counter() > deadline:
            break
    left = deadline - time.perf_counter()
    measured = fit(max(_FEW, min(len(images.labels), int(left / per_batch / 3))), last[-1])
    found = [next(measured)]
    while time.perf_counter() < deadline:
        found.append(next(measured))
    return statistics.median(found), last[-1]


def batch_of(model: nn.Module, images: Images, count: int, device: str) -> tuple[Tensor, Tensor]:
    """A batch, and what the model says of it: labels of which none is an error to begin with."""
    x = images.images[:count].float().div(255).to(device)
    with in_eval_mode(model), torch.no_grad():
        return x, model(x).argmax(1)


def attack_seconds(
    stage: Stage, block: Mapping[str, Any], model: nn.Module, some: tuple[Tensor, Tensor], threat: Threat, clock: Clock,
    seconds: float, surface: Surface | None = None,
) -> float:  # fmt: skip
    """Seconds for one image that survives, of an attacker who knows the `surface`.

    The attack is called on a batch, with an eps at which nothing is fooled, so that it goes through all it may try.
    Where the time is over first, or it comes round to a point in so small a ball, what is left goes by passes.
    """
    harmless, (x, y) = Threat(threat.norm, threat.eps * _HARMLESS), some
    draws = Draws(0, torch.arange(len(x), device=x.device))
    limit = time.perf_counter() + seconds

    def stop(*_: Any) -> None:
        if passes.forward >= _LEAST * len(x) and time.perf_counter() > limit:
            raise _Enough

    def call() -> None:
        with contextlib.suppress(_Enough):
            stage.attack(model, x, y, harmless, draws)

    known = surface or Surface()
    with in_eval_mode(model), torch.random.fork_rng(devices=[]), counted(model) as passes, knowing(model, known):
        handle = model.register_forward_pre_hook(stop)
        try:
            took = clock.time(call)
        finally:
            handle.remove()
    if not passes.forward:
        return took / len(x)
    most = most_passes(block, threat)
    if most is None:  # at least: nobody has counted further
        most = (MOST_CALLS, MOST_CALLS) if time.perf_counter() > limit else (0, 0)
    return took / passes.forward * max(known.draws * most[0], passes.forward / len(x))


class _Enough(Exception):
    """The time for an attack is over."""


def scoring_seconds(
    model: nn.Module, some: tuple[Tensor, Tensor], threat: Threat, surface: Surface, clock: Clock
) -> float:
    """Seconds for one image at one eps and attack: an evaluation under an attack that does nothing."""
    x, y = (part.cpu() for part in some)

    def evaluate() -> None:
        evaluate_robustness(model, x, y, threat=threat, attacks=[_unmoved], surface=surface, eps=[threat.eps / 2])

    evaluate()
    return min(clock.time(evaluate) for _ in range(2)) / len(x) / 2


def _unmoved(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
    return x
