"""From the plain values of a spec to templates, with everything that is wrong on the way collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.build import (
    Kinds,
    Setting,
    is_off,
    keys_of,
    look_up,
    not_a_list,
    of_kinds,
    unknown_key,
    unopenable,
)
from orchestrator.coercion import MOST_WHOLE, allowed, coerce, item_hint, number
from orchestrator.errors import Place, Problem
from orchestrator.holes import Choice, Conditions, Normal, Numeric, Range, column_of, text_of
from orchestrator.template import Fields, Fixed, Items, Leaf, Node, Pick, Ref
from orchestrator.wording import nearest, shown

FORMS = {
    "uniform": "[low, high]",
    "log_uniform": "[low, high]",
    "int": "[low, high]",
    "log_int": "[low, high]",
    "normal": "[mean, std, low, high]",
    "log_normal": "[mean, std, low, high], mean and std of the logarithm",
    "choice": "a list of values or blocks",
    "grid": "a list of values",
    "each": "a mapping of layers to holes",
    "ref": "the path of a value, such as threat.eps",
}
"""Every word that makes a mapping a hole, with what it takes."""

_BESIDE = {"ref": ("times",), **dict.fromkeys(list(FORMS)[:6], ("step",))}
_WHOLE = ("int", "log_int")
_LEAST_MASS = 1e-6  # of a normal between its bounds: below it quantiles have no digits left


def hole_kind(value: Any) -> str | None:
    """The word that makes a mapping a hole; None for everything else, blocks included."""
    if not isinstance(value, Mapping) or "name" in value:
        return None
    return next((kind for kind in FORMS if kind in value), None)


@dataclass(frozen=True)
class Spot:
    """Where one is: in the spec (`at`), among the parameters (`path`), under which choices (`given`)."""

    at: Place
    path: str
    given: Conditions = ()

    def inside(self, key: str | int) -> Spot:
        return Spot((*self.at, key), f"{self.path}.{key}", self.given)

    def below(self, word: str) -> Spot:
        """Below a word of the grammar, which is in the spec but in no path."""
        return replace(self, at=(*self.at, word))

    def option(self, kind: str, position: int, label: str) -> Spot:
        return Spot((*self.at, kind, position), f"{self.path}.{label}", (*self.given, (self.path, label)))


@dataclass
class Reader:
    """Reads templates; `problems` gathers what is wrong. What it returns is of use only when there are none."""

    problems: list[Problem] = field(default_factory=list)

    def block(self, kinds: Kinds, value: Any, spot: Spot, takes_null: bool = False) -> Node:
        """A block or, where blocks have names, a choice of blocks."""
        if takes_null and is_off(value):
            return Fixed(spot.at, None)
        kind = None if isinstance(of_kinds(kinds), type) else hole_kind(value)
        if kind == "choice":
            return self._choice(value, spot, lambda option, inner: self.block(kinds, option, inner, takes_null))
        if kind is not None:
            return self._wrong(spot, f"must be a block with a name, or a choice of such blocks, got {shown(value)}")
        if problem := unopenable(kinds, value):
            return self._wrong(spot, problem.text, problem.at)
        return self._fields(kinds, {"name": value} if isinstance(value, str) else value, spot)

    def blocks(self, kinds: Kinds, value: Any, spot: Spot) -> Node:
        """A list of blocks, or a choice of such lists."""
        if is_off(value):
            return Fixed(spot.at, None)
        kind = hole_kind(value)
        if kind == "choice":
            return self._choice(value, spot, lambda option, inner: self.blocks(kinds, option, inner))
        if not isinstance(value, list):
            return self._wrong(spot, not_a_list(value))
        return Items(spot.at, tuple(self.block(kinds, item, spot.inside(at)) for at, item in enumerate(value)))

    def value(self, hint: Any, value: Any, spot: Spot) -> Node:
        """What a field of type `hint` is set to: a plain value, a hole, or a list or mapping with holes inside."""
        if (kind := hole_kind(value)) is not None:
            return self._hole(kind, hint, value, spot)
        if isinstance(value, list) and item_hint(hint, 0) is not None and _has_holes(value):
            items = enumerate(value)
            return Items(spot.at, tuple(self.value(item_hint(hint, at), item, spot.inside(at)) for at, item in items))
        if isinstance(value, Mapping) and item_hint(hint, "") is not None:
            return self._mapping(hint, value, spot, spot)
        return self._plain(hint, value, spot)

    def _fields(self, kinds: Kinds, block: Mapping[str, Any], spot: Spot) -> Node:
        """The settings of a block whose class is known, defaults filled in."""
        table = of_kinds(kinds)
        name = None if isinstance(table, type) else block["name"]
        known = keys_of(kinds, table if isinstance(table, type) else look_up(table, block["name"]))
        for key in block:
            if key not in known and not (key == "name" and name is not None):
                self._wrong(spot, unknown_key(known, key), (key,))
        fields = {
            setting.name: self.setting(setting, block, spot.inside(setting.name))
            for setting in known.values()
            if setting.name in block or not setting.is_left_out
        }
        return Fields(spot.at, fields, name)

    def setting(self, setting: Setting, block: Mapping[str, Any], spot: Spot) -> Node:
        """What one key of a block is set to; `spot` is that of the key."""
        if setting.name not in block:
            return self._wrong(spot, "is required") if setting.is_required else Fixed(spot.at, setting.default)
        value = block[setting.name]
        if setting.kinds is None:
            return self.value(setting.hint, value, spot)
        if setting.is_list:
            return self.blocks(setting.kinds, value, spot)
        return self.block(setting.kinds, value, spot, setting.takes_null())

    def _plain(self, hint: Any, value: Any, spot: Spot) -> Node:
        try:
            return Fixed(spot.at, coerce(hint, value))
        except ValueError as error:
            hint_at_hole = ""
            if isinstance(value, Mapping):
                guess = next((found for key in value if (found := nearest(FORMS, key))), "")
                hint_at_hole = f"; a hole is written with one of {', '.join(FORMS)}{guess}"
            return self._wrong(spot, f"{error}{hint_at_hole}")

    def _mapping(self, hint: Any, value: Mapping[str, Any], spot: Spot, place: Spot) -> Node:
        """A value per key. `place` is where the mapping is written: below the word `each`, or at the spot itself."""
        if not _has_holes(value):
            return self._plain(hint, value, place)
        nodes = {
            key: self.value(item_hint(hint, key), item, replace(spot.inside(key), at=(*place.at, key)))
            for key, item in value.items()
        }
        return Fields(spot.at, nodes, is_each=True)

    def _hole(self, kind: str, hint: Any, value: Mapping[str, Any], spot: Spot) -> Node:
        beside = _BESIDE.get(kind, ())
        for key in value:
            if key != kind and key not in beside:
                takes = f"a hole of kind {kind} takes only {' and '.join((kind, *beside))}"
                return self._wrong(spot, f"unknown key; {takes}{nearest(beside, key)}", (key,))
        if kind == "ref":
            return self._ref(hint, value, spot)
        if kind in ("choice", "grid"):
            if kind == "grid" and (item := _first_nested(value["grid"])) is not None:
                return self._wrong(spot, f"takes plain values, got {shown(item)}; use choice", (kind,))
            return self._choice(value, spot, lambda option, inner: self.value(hint, option, inner), kind)
        if kind == "each":
            if item_hint(hint, "") is None:
                return self._wrong(spot, f"must be {allowed(hint)}, not a value for each layer, got {shown(value)}")
            if not isinstance(value["each"], Mapping):
                return self._wrong(spot, f"must be {FORMS['each']}, got {shown(value['each'])}", ("each",))
            return self._mapping(hint, value["each"], spot, spot.below("each"))
        return self._numeric(kind, hint, value, spot)

    def _ref(self, hint: Any, value: Mapping[str, Any], spot: Spot) -> Node:
        target = value["ref"]
        if not isinstance(target, str) or not target:
            return self._wrong(spot, f"must be {FORMS['ref']}, got {shown(target)}", ("ref",))
        try:
            return Ref(spot.at, target, float(number(value.get("times", 1))), hint)
        except ValueError as error:
            return self._wrong(spot, str(error), ("times",))

    def _choice(self, value: Mapping[str, Any], spot: Spot, read: Any, kind: str = "choice") -> Node:
        options = value[kind]
        if set(value) != {kind}:
            return self._wrong(spot, f"a {kind} takes no {', '.join(key for key in value if key != kind)} beside it")
        if not isinstance(options, list) or not options:
            return self._wrong(spot, f"must be {FORMS[kind]}, with at least one, got {shown(options)}", (kind,))
        before = len(self.problems)
        names = distinct([label_of(option) for option in options])
        spots = [spot.option(kind, place, name) for place, name in enumerate(names)]
        nodes = tuple(read(option, inner) for option, inner in zip(options, spots, strict=True))
        if len(self.problems) > before:
            return Fixed(spot.at, None)
        labels = _labels(nodes, names)
        for place, label in enumerate(labels):
            if label in labels[:place]:
                return self._wrong(spot, f"{shown(label)} is listed twice", (kind, place))
        hole = Choice(
            spot.path, kind, column_of(labels), spot.given, tuple(labels), tuple(node.form() for node in nodes)
        )
        return Pick(spot.at, hole, nodes)

    def _numeric(self, kind: str, hint: Any, value: Mapping[str, Any], spot: Spot) -> Node:
        given = value[kind]
        count = FORMS[kind].partition("]")[0].count(",") + 1
        if not isinstance(given, list) or len(given) != count:
            return self._wrong(spot, f"must be {FORMS[kind]}, got {shown(given)}", (kind,))
        before = len(self.problems)
        numbers = [self._number(item, spot, (kind, place)) for place, item in enumerate(given)]
        step = self._number(value["step"], spot, ("step",)) if "step" in value else None
        if len(self.problems) > before:
            return Fixed(spot.at, None)
        column = _numeric_column(kind, hint, numbers[-2], numbers[-1], step)
        if column is None:
            whole = "; a hole of whole numbers is int or log_int" if _takes(hint, 1) else ""
            return self._wrong(spot, f"must be {allowed(hint)}, got a hole of numbers, {shown(value)}{whole}")
        hole = _made(kind, column, numbers, step, spot)
        if problem := _bounds_problem(kind, hole, shown(given)):
            return self._wrong(spot, problem, (kind,))
        return Leaf(spot.at, hole)

    def _number(self, value: Any, spot: Spot, inside: Place) -> float:
        try:
            return float(number(value))
        except ValueError as error:
            self._wrong(spot, str(error), inside)
            return 0.0

    def _wrong(self, spot: Spot, text: str, inside: Place = ()) -> Node:
        self.problems.append(Problem((*spot.at, *inside), text))
        return Fixed(spot.at, None)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, all different: the second `pcl` is `pcl.2`."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return found


def label_of(option: Any) -> str:
    """What an option is called: a block by its name, a hole by its word, else "list", "each" or the value's text."""
    if isinstance(option, Mapping):
        return str(option.get("name") or hole_kind(option) or "each")
    return "list" if isinstance(option, list) else text_of(option)


def _labels(nodes: Sequence[Node], names: Sequence[str]) -> list[Any]:
    """The values themselves where all are scalars of one kind; else the text of each value, the name of all else."""
    values = [node.value for node in nodes if isinstance(node, Fixed)]
    are_scalars = len(values) == len(nodes) and not any(isinstance(value, (list, Mapping)) for value in values)
    column = column_of(values) if are_scalars else "string"
    if column == "float":
        return [None if value is None else float(value) for value in values]
    if column != "string":
        return values
    if are_scalars:
        return [None if value is None else text_of(value) for value in values]
    return [text_of(node.value) if isinstance(node, Fixed) else name for node, name in zip(nodes, names, strict=True)]


def _has_holes(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_holes, value))
    return isinstance(value, Mapping) and (hole_kind(value) is not None or any(map(_has_holes, value.values())))


def _first_nested(options: Any) -> Any:
    if not isinstance(options, list):
        return None
    return next((option for option in options if isinstance(option, (list, Mapping))), None)


def _takes(hint: Any, value: Any) -> bool:
    try:
        coerce(hint, value)
    except ValueError:
        return False
    return True


def _numeric_column(kind: str, hint: Any, low: float, high: float, step: float | None) -> str | None:
    """The type a numeric hole has in a field: that of the field; None where it takes no such numbers."""
    is_whole = kind in _WHOLE or all(number is not None and number.is_integer() for number in (low, high, step))
    if is_whole and _takes(hint, 1):
        return "int" if isinstance(coerce(hint, 1), int) else "float"
    return "float" if _takes(hint, 0.5) else None


def _made(kind: str, column: str, numbers: Sequence[float], step: float | None, spot: Spot) -> Numeric:
    if kind in _WHOLE:
        step = None if column == "int" and step == 1 else step or (1.0 if column == "float" else None)
    if kind in ("normal", "log_normal"):
        mean, std, low, high = numbers
        return Normal(spot.path, kind, column, spot.given, low, high, step, mean, std)
    low, high = numbers
    return Range(spot.path, kind, column, spot.given, low, high, step)


def _bounds_problem(kind: str, hole: Numeric, bounds: str) -> str | None:
    """Why a range cannot be, if so; `bounds` as they were written."""
    if hole.low >= hole.high:
        return f"low must be below high, got {bounds}"
    if kind.startswith("log_") and hole.low <= 0:
        return f"bounds must be > 0 on a log scale, got {bounds}"
    if kind in _WHOLE and not (hole.low.is_integer() and hole.high.is_integer() and (hole.step or 1.0).is_integer()):
        step = "" if hole.step in (None, 1) else f", step {hole.step:g}"
        return f"bounds and step must be whole numbers, got {bounds}{step}"
    if hole.step is not None and hole.step <= 0:
        return f"step must be > 0, got {hole.step:g}"
    if (width := (hole.high - hole.low) / (hole.step or 1)) > MOST_WHOLE and (hole.step or hole.column == "int"):
        return f"may have at most {MOST_WHOLE:,} values, got {width:.4g} between {bounds}"
    if hole.step and abs((steps := (hole.high - hole.low) / hole.step) - round(steps)) > 1e-6:
        return f"high must be low plus a multiple of step, got {bounds}, step {hole.step:g}"
    if isinstance(hole, Normal) and hole.std <= 0:
        return f"std must be > 0, got {hole.std:g}"
    if isinstance(hole, Normal) and hole.mass()[1] < _LEAST_MASS:
        return f"less than a millionth of this distribution is in {bounds}"
    return None
