"""Times here what a sweep will do most: an epoch of training, each attack, the scoring around it. Without Ray."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attacks import Draws, Threat
from defenses import DEFENSES, NETWORKS, Data, Training
from defenses.state import State
from orchestrator.attack_passes import MOST_CALLS, most_passes
from orchestrator.build import make
from orchestrator.cascade import Stage, stages
from orchestrator.errors import UserError
from orchestrator.eval_mode import in_eval_mode
from orchestrator.evaluation import evaluate_robustness
from orchestrator.known_sizes import Known
from orchestrator.machine import allocation_here
from orchestrator.outlook import CellOutlook, EvaluationOutlook, Outlook
from orchestrator.parameter_count import parameter_count
from orchestrator.passes import counted
from orchestrator.space import Configuration
from orchestrator.splits import load_training
from orchestrator.wording import shown

SYNTHETIC = 2000  # images that stand for data which are not there
_HARMLESS = 1e-3  # of eps, at which nothing is fooled and every restart runs
_BATCH = 256  # as evaluations have it
_UNSAID = 500  # examples of an evaluation where the data decide
_LONG = 10_000  # epochs of a training that is only timed
_SLOW = 1e-3  # a rate at which no training that is only timed diverges
_LEAST = 3  # passes of an attack, whatever they take
_FEW = 2  # batches of an epoch that warms up


@dataclass(frozen=True)
class Case:
    """One configuration that stands for a `share` of its cell's, and what it costs, in seconds.

    `epoch` is one over all training images, `attacks` has for each evaluation the time of each attack for one image
    at one eps that survives it, `scoring` what judging adds for one image at one eps and attack.
    """

    network: str
    defense: str
    parameters: int | None
    share: float
    epoch: float
    images_per_second: float
    attacks: Mapping[str, Sequence[float]]
    scoring: float


@dataclass(frozen=True)
class CellProbe:
    """The costs of one cell. `remark` says whether images were generated for want of data."""

    cell: str
    train: int
    examples: Mapping[str, int]
    load: float
    cases: Sequence[Case]
    remark: str = ""


@dataclass(frozen=True)
class Images:
    """Images uint8 [N, C, H, W] and labels for timing, and how many training images an epoch will have."""

    images: Tensor
    labels: Tensor
    classes: int
    train: int
    load: float
    remark: str = ""


def probe(found: Outlook, seconds: float) -> list[CellProbe]:
    """Spends about `seconds` on each cell, on as many threads as a trial has CPUs, on the GPU where trials get one.

    Raises UserError where neither data nor their shape are at hand.
    """
    here, _ = allocation_here(found.spec.resources)
    wanted = found.spec.resources.trial
    gpus = here.trial.gpus if here else wanted.gpus
    is_on_gpu = torch.cuda.is_available() and gpus != 0
    cpus = here.trial.cpus if here else wanted.cpus
    threads = max(1, min(os.cpu_count() or 1, int(cpus) if cpus != "auto" else 1))
    loaded: dict[str, Images] = {}
    probes = []
    with _threads(threads):
        for cell in found.cells:
            key = repr(cell.cell.dataset_block())
            loaded[key] = loaded.get(key) or _images(cell, found.spec.seed)
            probes.append(_cell(found, cell, loaded[key], "cuda" if is_on_gpu else "cpu", seconds))
    return probes


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _images(cell: CellOutlook, seed: int) -> Images:
    """The training data, or where they are not there images of their shape."""
    began = time.perf_counter()
    try:
        train, _ = load_training(cell.cell.dataset_block(), seed)
    except UserError as error:
        return _generated(cell.known, error)
    load = time.perf_counter() - began
    images, labels = torch.from_numpy(train.images.copy()), torch.from_numpy(train.labels.copy())
    return Images(images, labels, train.classes, len(labels), load)


def _generated(known: Known, error: UserError) -> Images:
    if known.shape is None:
        raise UserError(f"--probe: {error}") from None
    channels, size, classes = known.shape
    generator = torch.Generator().manual_seed(0)
    count = max(classes, min(SYNTHETIC, known.train or SYNTHETIC))
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    remark = f"timed on generated images: {error}"
    return Images(images, torch.arange(count) % classes, classes, known.train or count, 0.0, remark)


def _cell(found: Outlook, cell: CellOutlook, images: Images, device: str, seconds: float) -> CellProbe:
    chosen = list(_chosen(cell, (images.images.shape[1], images.images.shape[2], images.classes)))
    evaluations = [e for e in found.evaluations if e.name != "test" or found.spec.evaluation.test.finalists]
    examples = {e.name: e.examples or (cell.known.test if e.name == "test" else None) or _UNSAID for e in evaluations}
    each, cases = seconds / len(chosen), []
    for configuration, count, share in chosen:
        try:
            timed = _case(configuration, count, share, cell.cell.threat, images, evaluations, examples, device, each)
        except (ValueError, RuntimeError) as error:
            what = f"{cell.cell.name}: {configuration.defense['name']} on {shown(configuration.network)}"
            raise UserError(f"--probe: {what} cannot be trained and attacked: {error}") from error
        cases.append(timed)
    return CellProbe(cell.cell.name, images.train, examples, images.load, cases, images.remark)


def _chosen(cell: CellOutlook, shape: tuple[int, int, int]) -> Iterator[tuple[Configuration, int | None, float]]:
    """The smallest and the largest network under each defense, with their parameters and share."""
    groups: dict[str, list[tuple[int, int]]] = {}
    for place, configuration in enumerate(cell.configurations):
        count = parameter_count(configuration.network, shape)
        groups.setdefault(configuration.defense["name"], []).append((count or 0, place))
    for sizes in groups.values():
        ends = [min(sizes), max(sizes)] if min(sizes)[0] < max(sizes)[0] else [sizes[0]]
        for count, place in ends:
            yield cell.configurations[place], count or None, len(sizes) / len(cell.configurations) / len(ends)


def _case(
    configuration: Configuration, parameters: int | None, share: float, threat: Threat, images: Images,
    evaluations: Sequence[EvaluationOutlook], examples: Mapping[str, int], device: str, seconds: float,
) -> Case:  # fmt: skip
    clock = Clock(device)
    defense = make(DEFENSES, configuration.defense)
    per_batch, state = _training(configuration, threat, images, clock, 0.4 * seconds)
    batches = -(-images.train // configuration.training["batch_size"])
    model, surface = defense.deployed(state).to(device), defense.surface()
    distinct = {repr(block): (block, e.name) for e in evaluations for block, _ in e.attacks}
    each = 0.5 * seconds / len(distinct)
    costs = {}
    for key, (block, name) in distinct.items():
        some = _some(model, images, min(_BATCH, examples[name]), device)
        costs[key] = _attack(stages(block)[0], block, model, some, threat, clock, each)
    return Case(
        configuration.network["name"],
        configuration.defense["name"],
        parameters,
        share,
        per_batch * batches,
        images.train / (per_batch * batches),
        {e.name: [costs[repr(block)] for block, _ in e.attacks] for e in evaluations},
        _scoring(model, some, threat, surface, clock),
    )


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


def _training(
    configuration: Configuration, threat: Threat, images: Images, clock: Clock, seconds: float
) -> tuple[float, State]:
    """Seconds of a batch by the defense's own `fit`, and the state reached: past the epochs before it is ready."""
    defense, network = make(DEFENSES, configuration.defense), make(NETWORKS, configuration.network)
    training = Training(**configuration.training, threat=threat)
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


def _some(model: nn.Module, images: Images, count: int, device: str) -> tuple[Tensor, Tensor]:
    """A batch, and what the model says of it: labels of which none is an error to begin with."""
    x = images.images[:count].float().div(255).to(device)
    with in_eval_mode(model), torch.no_grad():
        return x, model(x).argmax(1)


def _attack(
    stage: Stage, block: Mapping[str, Any], model: nn.Module, some: tuple[Tensor, Tensor], threat: Threat, clock: Clock,
    seconds: float,
) -> float:  # fmt: skip
    """Seconds for one image that survives.

    The attack is called on a batch, with an eps at which nothing is fooled, so that it goes through all it may try.
    Where the time is over first, what is left goes by the number of passes.
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

    with in_eval_mode(model), torch.random.fork_rng(devices=[]), counted(model) as passes:
        handle = model.register_forward_pre_hook(stop)
        try:
            took = clock.time(call)
        finally:
            handle.remove()
    if time.perf_counter() <= limit or not passes.forward:
        return took / len(x)
    whole = most_passes(block, threat) or (MOST_CALLS, MOST_CALLS)  # at least: nobody has counted further
    return took / passes.forward * max(whole[0], passes.forward / len(x))


class _Enough(Exception):
    """The time for an attack is over."""


def _scoring(model: nn.Module, some: tuple[Tensor, Tensor], threat: Threat, surface: Any, clock: Clock) -> float:
    """Seconds for one image at one eps and attack: an evaluation under an attack that does nothing."""
    x, y = (part.cpu() for part in some)

    def evaluate() -> None:
        evaluate_robustness(model, x, y, threat=threat, attacks=[_unmoved], surface=surface, eps=[threat.eps / 2])

    evaluate()
    return min(clock.time(evaluate) for _ in range(2)) / len(x) / 2


def _unmoved(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
    return x
