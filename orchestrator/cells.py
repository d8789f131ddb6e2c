"""The cells of a spec: one study for each combination of the matrix, with its data, its threat and its space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.build import Kinds, examine, look_up, refusals, settings, unknown_key, unopenable
from orchestrator.coercion import coerce
from orchestrator.composition import KEYS, beside, refused
from orchestrator.errors import Place, Problem
from orchestrator.holes import text_of
from orchestrator.plausible_eps import refuse_eps
from orchestrator.reading import Reader, Spot, distinct, hole_kind, label_of
from orchestrator.space import Space
from orchestrator.tables import Tables
from orchestrator.template import Fields, Node, has_refs
from orchestrator.wording import dotted, nearest, one_of, shown

if TYPE_CHECKING:
    from attacks.threat import Threat

AXES = ("dataset", "threat", "defense", "network")
MOST_CELLS = 1000
_SIZES = ("validation", "train", "test")
_COMMON = ("root", *_SIZES)
_MAY_HAVE_HOLES = (
    *((part,) for part in ("network", "defense", "training", *KEYS)),
    *(("matrix", axis) for axis in ("network", "defense")),
    ("search", "initial"),
)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset by name: its own `settings`, and the sizes of the splits cut from it (null: decided there)."""

    name: str
    root: str | None
    validation: int | None
    train: int | None
    test: int | None
    settings: Mapping[str, Any]

    def block(self) -> dict[str, Any]:
        """All of it as the normalised block of a spec, JSON values only."""
        common = {key: getattr(self, key) for key in ("name", *_COMMON)}
        return {**common, **self.settings}


@dataclass(frozen=True)
class Cell:
    """One study. `fixed` are the settings of `search.initial` that belong here, in the coordinates of the sampler."""

    name: str
    dataset: DatasetSpec
    threat: Threat
    space: Space
    fixed: tuple[dict[str, Any], ...] = ()

    def dataset_block(self) -> dict[str, Any]:
        return self.dataset.block()


@dataclass
class CellReader:
    """Reads the blocks of a spec. `form` is their normal form, `problems` what is wrong with them."""

    tables: Tables
    seed: int
    problems: list[Problem] = field(default_factory=list)
    form: dict[str, Any] = field(default_factory=dict)

    def read(self, tree: Mapping[str, Any]) -> list[Cell]:
        """The cells, in the order of the matrix; none where there are problems."""
        lists = self._lists(tree)
        reader = Reader(self.problems)
        axes: dict[str, list[Any]] = {
            "dataset": [self._dataset(block, at) for block, at in self._entries("dataset", tree, lists)],
            "threat": [self._threat(block, at) for block, at in self._entries("threat", tree, lists)],
        }
        kinds = self.tables.blocks()
        for axis in ("defense", "network"):
            entries = self._entries(axis, tree, lists)
            axes[axis] = [reader.block(kinds[axis], block, Spot(at, axis)) for block, at in entries]
        training = self._training(reader, kinds["training"], tree)
        if self.problems:
            return []
        self._note_form(axes, training, lists)
        cells = [self._cell(name, dict(points), training) for name, points in _combined(axes, lists)]
        self._probe(cells)
        return [] if self.problems else cells

    def _training(self, reader: Reader, kinds: Kinds, tree: Mapping[str, Any]) -> Node:
        """Training, with the keys of composition that stand beside it: `adversarial` is `training.adversarial`."""
        given = tree.get("training", {})
        found = reader.block(kinds, given, Spot(("training",), "training"))
        written = {key: tree[key] for key in KEYS if key in tree}
        for key in written:
            if isinstance(given, Mapping) and key in given:
                self._wrong((key,), f"is given under training too; keep one of them, got {shown(written[key])}")
        if not isinstance(found, Fields) or self.problems:
            return found
        settings = {key: beside(self.tables)[key] for key in written}
        more = {key: reader.setting(settings[key], written, Spot((key,), f"training.{key}")) for key in written}
        return replace(found, fields={**found.fields, **more})

    def _lists(self, tree: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The lists of the matrix by axis; for an axis that is wrong an empty one."""
        matrix = tree.get("matrix", {})
        if not isinstance(matrix, Mapping):
            self._wrong(("matrix",), f"must be a mapping, got {shown(matrix)}")
            return {}
        for axis, entries in matrix.items():
            if axis not in AXES:
                self._wrong(
                    ("matrix", axis), f"is no axis of a matrix; the axes are {', '.join(AXES)}{nearest(AXES, axis)}"
                )
            elif axis in tree:
                self._wrong(("matrix", axis), f"{axis} is given beside the matrix too; keep one of them")
            elif not isinstance(entries, list) or not entries:
                self._wrong(("matrix", axis), f"must be a list with at least one {axis}, got {shown(entries)}")
        lists = {axis: entries if isinstance(entries, list) else [] for axis, entries in matrix.items() if axis in AXES}
        if (count := math.prod(map(len, lists.values()))) > MOST_CELLS:
            sizes = " x ".join(str(len(entries)) for entries in lists.values())
            self._wrong(("matrix",), f"may have at most {MOST_CELLS} cells, got {count} ({sizes})")
        return lists

    def _entries(self, axis: str, tree: Mapping[str, Any], lists: Mapping[str, list[Any]]) -> list[tuple[Any, Place]]:
        """The blocks of an axis and their places."""
        if axis in lists:
            return [(entry, ("matrix", axis, place)) for place, entry in enumerate(lists[axis])]
        if axis in tree:
            return [(tree[axis], (axis,))]
        self._wrong((axis,), f"is required, or a list of them under matrix: {{{axis}: [...]}}")
        return []

    def _dataset(self, block: Any, at: Place) -> DatasetSpec | None:
        kinds = self.tables.datasets
        if problem := unopenable(kinds, block):
            self._wrong((*at, *problem.at), problem.text)
            return None
        given = {"name": block} if isinstance(block, str) else dict(block)
        known = {**dict.fromkeys(_COMMON), **settings(look_up(kinds, given["name"]))}
        for key in set(given) - set(known) - {"name"}:
            self._wrong((*at, key), unknown_key(known, key))
        common = {key: self._common(key, given.get(key), (*at, key)) for key in _COMMON}
        own = {key: value for key, value in given.items() if key == "name" or (key in known and key not in common)}
        values, problems = examine(kinds, own)
        for problem in problems or refusals(kinds, values):
            self._wrong((*at, *problem.at), problem.text)
        return DatasetSpec(values.pop("name"), **common, settings=values)

    def _common(self, key: str, value: Any, at: Place) -> Any:
        """A setting that every dataset has."""
        hint = str | None if key == "root" else int | None
        try:
            found = coerce(hint, value)
        except ValueError as error:
            self._wrong(at, str(error))
            return None
        if isinstance(found, str) and not (found.strip() and found.isprintable()):
            self._wrong(at, f"must be a path without control characters, got {shown(found)}")
            return None
        if isinstance(found, int) and found < 1:
            self._wrong(at, f"must be a whole number >= 1 or null, got {found}")
            return None
        return found

    def _threat(self, block: Any, at: Place) -> Threat | None:
        from attacks.threat import NORMS, Threat

        values, problems = examine(Threat, block)
        if not problems and values["norm"] not in NORMS:
            problems = [Problem(("norm",), one_of(NORMS, values["norm"]))]
        problems = problems or refusals(Threat, values) or _eps_problems(values["norm"], values["eps"])
        for problem in problems:
            self._wrong((*at, *problem.at), problem.text)
        return None if problems else Threat(**values)

    def _note_form(self, axes: Mapping[str, list[Any]], training: Node, lists: Mapping[str, Any]) -> None:
        forms = {axis: [_form(entry) for entry in entries] for axis, entries in axes.items()}
        self.form = {axis: None if axis in lists else forms[axis][0] for axis in AXES}
        self.form["training"] = training.form()
        self.form["matrix"] = {axis: forms[axis] for axis in AXES if axis in lists}

    def _cell(self, name: str, points: Mapping[str, Any], training: Node) -> Cell:
        dataset, threat = points["dataset"], points["threat"]
        facts = {"dataset": dataset.block(), "threat": _form(threat), "seed": self.seed}
        template = Fields((), {"network": points["network"], "defense": points["defense"], "training": training})
        return Cell(name, dataset, threat, Space(template, facts))

    def _probe(self, cells: list[Cell]) -> None:
        """Let the classes look at what the holes may be; a space that differs in its facts only, just once."""
        seen: list[Any] = []
        for cell in cells:
            key = (cell.space.template, cell.space.facts if has_refs(cell.space.template) else cell.threat.norm)
            if key not in seen:
                seen.append(key)
                self.problems += cell.space.problems(self.tables.blocks()) or self._clashes(cell)

    def _clashes(self, cell: Cell) -> list[Problem]:
        """What does not go together between the defense and what composes with it, at the place of the defense."""
        nodes = cell.space.template.fields
        forms = [nodes[part].form() for part in ("defense", "training")]
        if not any(key in text_of(form) for key in KEYS for form in forms):
            return []
        found = {
            problem: None
            for tried in cell.space.tried()
            for problem in refused(tried.defense, tried.training, self.tables)
        }
        return [Problem(nodes["defense"].at, _told(problem)) for problem in found]

    def _wrong(self, at: Place, text: str) -> None:
        self.problems.append(Problem(at, text))


def _told(problem: Problem) -> str:
    return f"{dotted(problem.at)}: {problem.text}" if problem.at else problem.text


def _eps_problems(norm: str, eps: float) -> list[Problem]:
    if eps == 0:
        return [Problem(("eps",), "must be > 0, got 0: at 0 there is nothing to attack")]
    try:
        refuse_eps(norm, eps)
    except ValueError as error:
        return [Problem(("eps",), str(error).removeprefix("eps: "))]
    return []


def _combined(
    axes: Mapping[str, Sequence[Any]], lists: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[tuple[str, Any], ...]]]:
    """The name of each cell, and what it has of each axis."""
    named = {axis: zip(_names(entries), entries, strict=True) for axis, entries in axes.items()}
    for combined in itertools.product(*named.values()):
        points = dict(zip(axes, combined, strict=True))
        name = ",".join(f"{axis}={name}" for axis, (name, _) in points.items() if axis in lists)
        yield name or "all", tuple((axis, entry) for axis, (_, entry) in points.items())


def _names(entries: Sequence[Any]) -> list[str]:
    return distinct([_name(entry) for entry in entries])


def _name(entry: Any) -> str:
    if isinstance(entry, Node):
        return label_of(entry.form())
    return entry.name if isinstance(entry, DatasetSpec) else f"{entry.norm}:{entry.eps:.4g}"


def _form(entry: Any) -> Any:
    """A dataset, threat or template in normal form."""
    if isinstance(entry, Node):
        return entry.form()
    return entry.block() if isinstance(entry, DatasetSpec) else {"norm": entry.norm, "eps": entry.eps}


def misplaced_holes(tree: Mapping[str, Any], sections: Container[str]) -> list[Problem]:
    """Holes where none may be, with a word on what to do instead; not below a key that is no section at all."""
    return list(_misplaced({key: value for key, value in tree.items() if key in sections}, ()))


def _misplaced(value: Any, at: Place) -> Iterator[Problem]:
    if at in _MAY_HAVE_HOLES:
        return
    if at and hole_kind(value) is not None:
        advice = f"matrix: {{{at[0]}: [...]}}" if at[0] in AXES else f"matrix, over {', '.join(AXES)}"
        text = f"a hole may stand under network, defense and training only; to compare several, use {advice}"
        yield Problem(at, f"{text}, got {shown(value)}")
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _misplaced(item, (*at, key))
