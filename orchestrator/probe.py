"""Times here what a sweep will do most: an epoch of training, each attack, the scoring around it. Without Ray."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from defenses.inputs.front import known
from orchestrator.cascade import stages
from orchestrator.cells import Cell
from orchestrator.errors import UserError
from orchestrator.known_sizes import Known
from orchestrator.machine import allocation_here
from orchestrator.outlook import CellOutlook, EvaluationOutlook, Outlook
from orchestrator.parameter_count import parameter_count
from orchestrator.plan import Plan
from orchestrator.pretrained import is_pretrained
from orchestrator.space import Configuration
from orchestrator.splits import load_training
from orchestrator.timing import Clock, Images, attack_seconds, batch_of, scoring_seconds, train
from orchestrator.wording import shown

SYNTHETIC = 2000  # images that stand for data which are not there
_BATCH = 256  # as evaluations have it
_UNSAID = 500  # examples of an evaluation where the data decide


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
    examples = {e.name: e.examples or (cell.known.test if e.split == "test" else None) or _UNSAID for e in evaluations}
    each, cases = seconds / len(chosen), []
    for configuration, count, share in chosen:
        try:
            timed = _case(configuration, count, share, cell.cell, images, evaluations, examples, device, each)
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
    configuration: Configuration, parameters: int | None, share: float, cell: Cell, images: Images,
    evaluations: Sequence[EvaluationOutlook], examples: Mapping[str, int], device: str, seconds: float,
) -> Case:  # fmt: skip
    clock, is_trained = Clock(device), not is_pretrained(configuration.defense)
    if not is_trained:  # the same network with other weights
        configuration = replace(configuration, defense={"name": "standard"})
    plan = Plan.of(cell, configuration, "", 0, 0)
    defense, threat = plan.make_defense(), plan.make_threat()
    per_batch, state = train(plan, images, clock, (0.4 if is_trained else 0.1) * seconds)
    per_batch *= is_trained
    batches = -(-images.train // configuration.training["batch_size"])
    model = defense.deployed(state).to(device)
    surface = known(defense.surface(), model)
    distinct = {repr(block): (block, e.name) for e in evaluations for block, _ in e.attacks}
    each = 0.5 * seconds / len(distinct)
    costs = {}
    for key, (block, name) in distinct.items():
        some = batch_of(model, images, min(_BATCH, examples[name]), device)
        costs[key] = attack_seconds(stages(block)[0], block, model, some, threat, clock, each, surface)
    return Case(
        configuration.network["name"],
        configuration.defense["name"],
        parameters,
        share,
        per_batch * batches,
        images.train / (per_batch * batches) if per_batch else float("nan"),
        {e.name: [costs[repr(block)] for block, _ in e.attacks] for e in evaluations},
        scoring_seconds(model, some, threat, surface, clock),
    )
