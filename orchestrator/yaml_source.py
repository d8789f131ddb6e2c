"""Where a spec comes from: YAML 1.2 or a mapping, the values of `--set` put in, every place with its line."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from orchestrator.errors import Place, Problem, SpecError
from orchestrator.provenance import masked
from orchestrator.wording import dotted, shown

MOST_VALUES = 20_000  # an alias of aliases of aliases can stand for more than any memory holds
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + kind for kind in ("null", "bool", "int", "float")}


class Source:
    """The values of a spec as dicts, lists and scalars (`tree`), and where each was written."""

    def __init__(self, source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
        self.name = "spec"
        self._lines: dict[Place, str] = {}
        self._count = 0
        self.tree: Any = self._read(source)
        for override in overrides:
            self._override(override)

    def where(self, at: Place) -> str:
        """`file:line` of a place, or of the nearest one around it that is written somewhere."""
        while at and at not in self._lines:
            at = at[:-1]
        return self._lines.get(at, self.name)

    def error(self, problems: Sequence[Problem]) -> SpecError:
        """All problems in one error, a line for each, in the order of the file."""
        order = {place: position for position, place in enumerate(self._lines)}
        placed = sorted(problems, key=lambda problem: order.get(self._written(problem.at), 0))
        lines = (f"{self.where(p.at)} {dotted(p.at)}: {p.text}".replace(" : ", ": ") for p in placed)
        return SpecError("\n".join(dict.fromkeys(lines)))

    def _written(self, at: Place) -> Place:
        while at and at not in self._lines:
            at = at[:-1]
        return at

    def _read(self, source: str | Path | Mapping[str, Any]) -> Any:
        if isinstance(source, Mapping):
            try:
                return self._copied(source, ())
            except RecursionError:
                raise SpecError(f"{self.name}: is nested too deeply") from None
        if isinstance(source, str) and "\n" in source:
            return self._parsed(source)
        self.name = str(source)
        try:
            return self._parsed(Path(source).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(f"{self.name}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise SpecError(f"{self.name}: must be a text file in UTF-8") from None

    def _parsed(self, text: str) -> Any:
        try:
            node = _yaml().compose(io.StringIO(text))
            return None if node is None else self._value(node, (), self.name)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise SpecError(f"{self.name}{line}: is not YAML: {error.problem or error.context}") from None
        except YAMLError as error:
            raise SpecError(f"{self.name}: is not YAML: {str(error).splitlines()[0]}") from None
        except RecursionError:
            raise SpecError(f"{self.name}: is nested too deeply") from None

    def _value(self, node: Node, at: Place, where: str) -> Any:
        """The plain value of a node; `where` is the location of its key or dash."""
        self._lines[at] = where
        self._count += 1
        if self._count > MOST_VALUES:
            raise SpecError(f"{where} {dotted(at)}: a spec may have at most {MOST_VALUES} values, aliases counted")
        if isinstance(node, MappingNode):
            return self._mapping(node, at)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*at, place), self._at(item)) for place, item in enumerate(node.value)]
        return _scalar(node, f"{where} {dotted(at)}")

    def _mapping(self, node: MappingNode, at: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, str] = {}
        for key_node, value_node in _merged(node):
            where = self._at(key_node)
            if not isinstance(key_node, ScalarNode) or key_node.tag == _TAG + "null":
                raise SpecError(f"{where} {dotted(at)}: a key must be text".replace(" : ", ": "))
            key = str(key_node.value)
            if key in found:
                raise SpecError(f"{where} {dotted((*at, key))}: duplicate key, first given at {first[key]}")
            first[key] = where
            found[key] = self._value(value_node, (*at, key), where)
        return found

    def _at(self, node: Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}" if node.start_mark else self.name

    def _copied(self, value: Any, at: Place) -> Any:
        """The same for values that came from Python."""
        self._lines[at] = self.name
        if isinstance(value, Mapping):
            return {str(key): self._copied(item, (*at, str(key))) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._copied(item, (*at, place)) for place, item in enumerate(value)]
        if isinstance(value, Path):
            return str(value)
        return value.item() if hasattr(value, "item") else value  # numpy's scalars

    def _override(self, override: str) -> None:
        path, equals, text = override.partition("=")
        where = f"--set {masked(override)}"
        if not equals or not path.strip():
            raise SpecError(f"{where}: must be key.path=value, such as search.trials=8")
        keys = re.findall(r"[^.\[\]\s]+", path)
        try:
            value = Source(f"{text}\n").tree
        except SpecError as error:
            raise SpecError(f"{where}: the value is no YAML ({error})") from None
        if not isinstance(self.tree, dict):
            self.tree = {}
        at = self._put(keys, value, where)
        for place in [place for place in self._lines if place[: len(at)] == at]:
            del self._lines[place]
        self._lines[at] = where

    def _put(self, keys: Sequence[str], value: Any, where: str) -> Place:
        holder: Any = self.tree
        at: Place = ()
        for key in keys[:-1]:
            place = _key(holder, key, where)
            if isinstance(place, str) and holder.get(place) is None:
                holder[place] = {}
            holder = holder[place]
            at = (*at, place)
        last = _key(holder, keys[-1], where)
        holder[last] = value
        return (*at, last)


def to_yaml(tree: Mapping[str, Any]) -> str:
    """YAML that `Source` reads back as the same values; the innermost mappings and lists are on one line."""
    yaml: Any = _yaml()
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10_000
    stream = io.StringIO()
    yaml.dump(dict(tree), stream)
    return stream.getvalue()


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _key(holder: Any, key: str, where: str) -> str | int:
    """The key as one of this mapping or list; raises SpecError where it cannot be one."""
    if isinstance(holder, dict):
        return key
    if isinstance(holder, list) and key.isdecimal() and int(key) < len(holder):
        return int(key)
    what = f"a list of {len(holder)}" if isinstance(holder, list) else shown(holder)
    raise SpecError(f"{where}: there is no {key} in {what}")


def _merged(node: MappingNode) -> list[tuple[Node, Node]]:
    """Keys and values, those of `<<` first where the mapping itself does not give them."""
    merged: dict[str, tuple[Node, Node]] = {}
    own = [pair for pair in node.value if pair[0].tag != _TAG + "merge"]
    for _, value in (pair for pair in node.value if pair[0].tag == _TAG + "merge"):
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            for pair in _merged(source) if isinstance(source, MappingNode) else []:
                merged.setdefault(str(pair[0].value), pair)
    given = {str(key.value) for key, _ in own}
    return [*(pair for key, pair in merged.items() if key not in given), *own]


def _scalar(node: Node, where: str) -> Any:
    if node.tag in _PLAIN:
        return _constructed(node, where)
    if node.tag in (_TAG + "str", _TAG + "timestamp"):
        return str(node.value)
    raise SpecError(f"{where}: must be plain YAML, got a value tagged {node.tag}")


def _constructed(node: Node, where: str) -> Any:
    constructor: Any = SafeConstructor(loader=_yaml())
    try:
        return constructor.construct_object(node)
    except (ValueError, YAMLError):
        raise SpecError(f"{where}: cannot be read as a value, got {node.value!r}") from None
