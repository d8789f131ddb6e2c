"""A sweep spec: loaded, checked as a whole, in normal form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError

from orchestrator.cells import Cell, CellReader, DatasetSpec, misplaced_holes
from orchestrator.composition import KEYS
from orchestrator.errors import Place, Problem, SpecError
from orchestrator.plausible import (
    count_problems,
    listed_twice,
    rung_problems,
    search_problems,
    shared_out,
    size_problems,
    step_problems,
    with_initial,
)
from orchestrator.reading import hole_kind
from orchestrator.space import united_columns
from orchestrator.spec_models import (
    METRICS,
    SAMPLERS,
    SCHEDULERS,
    EvaluationSpec,
    Name,
    ResourcesSpec,
    SchedulerSpec,
    SearchSpec,
    Section,
    Seed,
    StorePlace,
    problems_of,
)
from orchestrator.tables import Tables, all_tables
from orchestrator.wording import dotted, shown
from orchestrator.yaml_source import Source, to_yaml

__all__ = [
    "METRICS",
    "SAMPLERS",
    "SCHEDULERS",
    "Cell",
    "DatasetSpec",
    "ResourcesSpec",
    "Spec",
    "difference",
    "evaluation_sizes",
    "load_spec",
]


class Spec(Section):
    """What a user wrote, every default filled in. `dataset` to `training` are blocks in normal form, holes and all."""

    name: Name
    seed: Seed = 0
    dataset: Any = None
    threat: Any = None
    matrix: Any = Field({})
    defense: Any = None
    network: Any = None
    training: Any = Field({})
    adversarial: Any = None  # these three are read as keys of `training`, where the normal form has them
    input: Any = None
    base: Any = None
    search: SearchSpec = SearchSpec()
    scheduler: SchedulerSpec = SchedulerSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    store: StorePlace = "results"
    _cells: tuple[Cell, ...] = PrivateAttr(())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.model_dump() == other.model_dump()

    def cells(self) -> list[Cell]:
        """One study each; a single one named "all" where there is no matrix."""
        return list(self._cells)

    def rungs(self, epochs: int, ready_epoch: int = 0) -> list[int]:
        """The epochs at which a trial of so many epochs is measured, the last of them `epochs`."""
        from orchestrator.rungs import rungs

        if self.scheduler.name == "none":
            return [epochs]
        return rungs(epochs, self.scheduler.grace_epochs, self.scheduler.reduction_factor, ready_epoch)

    def param_columns(self) -> dict[str, str]:
        """The type of each `param.*` column over all cells: int, float, bool or string."""
        return united_columns([cell.space for cell in self._cells])

    def to_yaml(self) -> str:
        """The normal form as YAML, which loads again to an equal spec."""
        return to_yaml({key: value for key, value in self.model_dump().items() if value is not None and value != {}})

    def search_space_key(self) -> dict[str, Any]:
        """Everything whose change would make results under one name incomparable, as JSON values.

        Where the data lie (`root`) is not in it, their content has a fingerprint; nor are store, resources,
        evaluation and the number of trials, which may change.
        """
        whole = self.model_dump()
        search = {key: value for key, value in whole["search"].items() if key != "trials"}
        blocks = {key: whole[key] for key in ("seed", "threat", "network", "defense", "training", "scheduler")}
        matrix = {**whole["matrix"], "dataset": [_rootless(entry) for entry in whole["matrix"].get("dataset", [])]}
        matrix = {axis: entries for axis, entries in matrix.items() if entries}
        return {**blocks, "dataset": _rootless(whole["dataset"]), "matrix": matrix, "search": search}


def load_spec(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    tables: Tables | None = None,
    name: str = "spec",
) -> Spec:
    """Load a spec from a file, YAML text (a string of several lines) or a mapping, and check all of it.

    `overrides` are "key.path=value" (a list position is a key too), the value in YAML. `tables` are what may be named,
    by default all there is; `name` is what messages call a text. Raises SpecError with a line for each problem.
    """
    opened = Source(source, overrides, name)
    tree = opened.tree
    if not isinstance(tree, dict):
        seen = "nothing: it is empty" if tree is None else shown(tree)
        raise SpecError(f"{opened.name}: must be a mapping with name, dataset, threat, network, defense, got {seen}")
    tree = {key: value for key, value in tree.items() if value is not None}
    spec, problems = _loaded(tree, tables or all_tables())
    misplaced = misplaced_holes(tree, Spec.model_fields)
    problems = misplaced + [p for p in problems if not any(p.at[: len(hole.at)] == hole.at for hole in misplaced)]
    if problems or spec is None:
        raise opened.error(problems)
    return spec


def evaluation_sizes(spec: Spec, validation_size: int) -> tuple[int, int]:
    """How many validation examples the rungs and how many others the final evaluation use.

    Where the spec is silent: at most 500 and a third of the split for the rungs, at most 2000 of the rest for the final
    evaluation. Raises SpecError where explicit numbers do not fit together.
    """
    try:
        return shared_out(spec.evaluation.rung.examples, spec.evaluation.final.examples, validation_size)
    except ValueError as error:
        raise SpecError(f"evaluation: {error}") from None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two `search_space_key`s, such as "training.lr: was 0.1, now 0.2"."""
    return list(_differences(old, new, ()))


def _loaded(tree: Mapping[str, Any], tables: Tables) -> tuple[Spec | None, list[Problem]]:
    """The spec, and what is wrong with it; without a spec there is something wrong."""
    problems: list[Problem] = []
    outer: Spec | None = None
    try:
        outer = Spec.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(error, Spec)
    reader = CellReader(tables, outer.seed if outer else 0)
    cells = reader.read(tree)
    problems += reader.problems
    attacks, wrong = _attacks(tree, tables)
    problems += wrong
    if outer is None:
        return None, problems
    problems += size_problems(outer.evaluation, cells) + rung_problems(outer.scheduler, cells)
    problems += count_problems(outer.search, outer.evaluation.test, len(cells)) + step_problems(attacks, cells)
    problems += search_problems(outer.search, cells)
    cells, wrong = with_initial(outer.search.initial, cells)
    problems += wrong
    if problems:
        return None, problems
    spec = outer.model_copy(
        update={**reader.form, **dict.fromkeys(KEYS), "evaluation": _with_attacks(outer.evaluation, attacks)}
    )
    spec._cells = tuple(cells)
    return spec, []


def _attacks(tree: Mapping[str, Any], tables: Tables) -> tuple[dict[str, list[dict[str, Any]]], list[Problem]]:
    """The normalised attacks of each evaluation."""
    given = tree.get("evaluation", {})
    blocks, problems = {}, []
    for stage, field in EvaluationSpec.model_fields.items():
        section = given.get(stage) if isinstance(given, Mapping) else None
        entries = section.get("attacks") if isinstance(section, Mapping) else None
        entries = field.default.attacks if entries is None else entries
        if isinstance(entries, list):
            at = ("evaluation", stage, "attacks")
            blocks[stage], wrong = tables.attack_blocks(entries, at)
            problems += wrong or listed_twice(blocks[stage], at)
    return blocks, problems


def _with_attacks(evaluation: EvaluationSpec, attacks: Mapping[str, list[dict[str, Any]]]) -> EvaluationSpec:
    stages = {
        stage: getattr(evaluation, stage).model_copy(update={"attacks": found}) for stage, found in attacks.items()
    }
    return evaluation.model_copy(update=stages)


def _rootless(block: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if block is None else {key: value for key, value in block.items() if key != "root"}


def _differences(old: Any, new: Any, at: Place) -> Iterator[str]:
    if old == new:
        return
    is_deeper = isinstance(old, Mapping) and isinstance(new, Mapping)
    if is_deeper and hole_kind(old) is None and hole_kind(new) is None and old.get("name") == new.get("name"):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), (*at, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and at[0] == "matrix":
        for place, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, (*at, place))
    else:
        yield f"{dotted(at)}: was {shown(old)}, now {shown(new)}"
