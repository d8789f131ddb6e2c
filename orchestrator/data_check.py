"""A spec held against its data before anything is trained: what can be known to fail is said now, not after hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from defenses import NETWORKS
from defenses.seeding import seeded
from orchestrator import pretrained
from orchestrator.build import make
from orchestrator.errors import SpecError
from orchestrator.plausible_eps import refuse_eps
from orchestrator.sampler_limits import sampler_remarks
from orchestrator.spec import Cell, Spec, evaluation_sizes
from orchestrator.splits import Split, count_test
from orchestrator.wording import shown

MOST_PARAMETERS = 10**11  # of one network: 400 GB before the first gradient
_FEW_PARAMETERS = 10**6  # up to which a network is built for real
_MOST_NETWORKS = 24  # of a cell that are tried; building one takes a hundredth of a second
_CPU = torch.device("cpu")


def check_data(spec: Spec, splits: Mapping[str, tuple[Split, Split]]) -> list[str]:
    """Remarks on what is allowed and seldom meant. `splits` are training and validation data by cell.

    Raises SpecError, all problems in it, where a threat, an evaluation, an attack or a network does not go with the
    data, UserError where a test split that will be needed is not there. Reads no test image and no test label.
    """
    problems: dict[str, None] = {}
    remarks: dict[str, None] = {}
    beside: list[tuple[Cell, int]] = []
    for cell in spec.cells():
        train, validation = splits[cell.name]
        problems |= dict.fromkeys(_problems(spec, cell, train, validation))
        remarks |= dict.fromkeys(_remarks(cell, train, validation))
        remarks |= dict.fromkeys(_remarks_on_test(spec, cell))
        beside.append((cell, len(validation.labels)))
    if problems:
        raise SpecError("\n".join(problems))
    remarks |= dict.fromkeys(remark for cell, size in beside for remark in _remarks_beside(spec, cell, size))
    spaces = {cell.name: cell.space for cell in spec.cells()}
    return [*remarks, *sampler_remarks(spec.search.sampler, spec.search.trials, spaces)]


def _problems(spec: Spec, cell: Cell, train: Split, validation: Split) -> Iterator[str]:
    where = f"dataset {cell.dataset.name}"
    channels, height, width = train.images.shape[1:]
    if height != width:
        yield f"{where}: images must be square, got {height} rows of {width}"
        return
    try:
        refuse_eps(cell.threat.norm, cell.threat.eps, channels * height * width)
    except ValueError as error:
        yield f"threat.{error}"
    try:
        evaluation_sizes(spec, len(validation.labels))
    except SpecError as error:
        yield f"{where}: {error}"
    yield from _without_a_third_class(spec, where, train.classes)
    yield from pretrained.problems(cell, train)
    tried = list(cell.space.tried())
    for block in _distinct([configuration.network for configuration in tried])[:_MOST_NETWORKS]:
        if problem := _network_problem(block, channels, height, train.classes):
            yield f"network {shown(block)}: {problem} ({where}: {channels}x{height}x{width}, {train.classes} classes)"


def _network_problem(block: Mapping[str, Any], channels: int, size: int, classes: int) -> str | None:
    """Why a network cannot take such images, if so.

    A large one is tried on a device that has shapes and no numbers, for which torch loads more than a second's modules.
    """
    try:
        with seeded(0, _CPU), torch.no_grad():
            with torch.device("meta"):
                model = make(NETWORKS, block)(channels, size, classes).eval()
            parameters = sum(parameter.numel() for parameter in model.parameters())
            if parameters > MOST_PARAMETERS:
                return f"must have at most {MOST_PARAMETERS:.0e} parameters, got {parameters:.1e}"
            if parameters <= _FEW_PARAMETERS:
                model = make(NETWORKS, block)(channels, size, classes).eval()
                logits = model(torch.zeros(2, channels, size, size))
            else:
                with torch.device("meta"):
                    logits = model(torch.empty(2, channels, size, size))
    except NotImplementedError:
        return None  # a plugin's, which looks at numbers: known when it is trained
    except (RuntimeError, ValueError, TypeError) as error:
        said = str(error).splitlines()[0]
        return None if "meta" in said else f"cannot be built for these images: {said}"
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        seen = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        return f"must give logits [n, {classes}], got {seen} for 2 images"
    return None


def _without_a_third_class(spec: Spec, where: str, classes: int) -> Iterator[str]:
    if classes >= 3:
        return
    for stage in ("rung", "final", "test", *spec.evaluation.named):
        for place, block in enumerate(spec.evaluation.block(stage).attacks):
            if block.get("loss") == "dlr":
                at = f"evaluation.{stage}.attacks[{place}].loss"
                yield f"{at}: dlr needs at least 3 classes, {where} has {classes}; use margin or cross_entropy"


def _remarks(cell: Cell, train: Split, validation: Split) -> Iterator[str]:
    where, n = f"dataset {cell.dataset.name}", len(train.labels)
    largest = max(configuration.training["batch_size"] for configuration in cell.space.tried())
    if largest > n:
        yield f"training.batch_size: up to {largest}, and {where} has {n} training images: an epoch is one step there"
    missing = train.classes - len(set(validation.labels.tolist()))
    if missing:
        yield (
            f"dataset.validation: {missing} of {train.classes} classes have none of the {len(validation.labels)} "
            "validation images: nothing that is measured on them says anything about these classes"
        )


def _remarks_on_test(spec: Spec, cell: Cell) -> Iterator[str]:
    wanted = spec.evaluation.test
    count = count_test(cell.dataset_block()) if wanted.finalists else None
    if count is not None and wanted.examples is not None and wanted.examples > count:
        yield f"evaluation.test.examples: {wanted.examples}, but the test split has {count}: all of them are used"


def _remarks_beside(spec: Spec, cell: Cell, validation: int) -> Iterator[str]:
    """On evaluations beside `final` and `test` that ask for more examples than there are."""
    left = validation - evaluation_sizes(spec, validation)[0]
    for name, block in spec.evaluation.named.items():
        if block.of == "finalists" and not spec.evaluation.test.finalists:
            yield f"evaluation.{name}: is of finalists, and evaluation.test.finalists is 0: it measures nothing"
            continue
        count = left if block.where == "validation" else count_test(cell.dataset_block())
        if count is not None and block.examples is not None and block.examples > count:
            rows = "validation rows that no rung used" if block.where == "validation" else "test examples"
            yield f"evaluation.{name}.examples: {block.examples}, but there are {count} {rows}: all of them are used"


def _distinct(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({repr(block): block for block in blocks}.values())
