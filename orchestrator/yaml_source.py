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
from ruamel.yaml.reader import ReaderError

from orchestrator.errors import Place, Problem, SpecError
from orchestrator.provenance import masked
from orchestrator.wording import dotted, shown

MOST_VALUES = 20_000  # an alias of aliases of aliases can stand for more than any memory holds
MOST_BYTES = 500_000
MOST_LEVELS = 50  # of nesting; whoever walks a spec does so in a few calls a level
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + kind for kind in ("null", "bool", "int", "float")}


class Source:
    """The values of a spec as dicts, lists and scalars (`tree`), and where each was written.

    `name` is what messages call a source that is no file.
    """

    def __init__(
        self, source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), name: str = "spec"
    ) -> None:
        self.name = name
        self._lines: dict[Place, str] = {}
        self._count = 0
        self._constructor: Any = SafeConstructor(loader=_yaml())
        self._merges: dict[int, list[tuple[Node, Node]] | None] = {}  # by mapping; None while it is being looked at
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
            return self._copied(source, ())
        if isinstance(source, str) and "\n" in source:
            return self._parsed(source)
        self.name = str(source)
        try:
            return self._parsed(_text(Path(source)))
        except OSError as error:
            raise SpecError(f"{self.name}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise SpecError(f"{self.name}: must be a text file in UTF-8, got the byte {_bad_byte(error)}") from None

    def _parsed(self, text: str) -> Any:
        try:
            node = _yaml().compose(io.StringIO(text))
            return None if node is None else self._value(node, (), self.name)
        except MarkedYAMLError as error:
            raise SpecError(f"{self.name}{_line_of(error)}: is not YAML: {_reason(error)}") from None
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            seen = repr(text[error.position])
            raise SpecError(f"{self.name}:{line}: must be plain text, got the character {seen}") from None
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
        if len(at) > MOST_LEVELS:
            raise SpecError(f"{where} {dotted(at[:3])}...: is nested too deeply, at most {MOST_LEVELS} levels")
        if not isinstance(node, ScalarNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            raise SpecError(f"{where} {dotted(at)}: must be plain YAML, got a value tagged {node.tag}")
        if isinstance(node, MappingNode):
            return self._mapping(node, at)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*at, place), self._at(item)) for place, item in enumerate(node.value)]
        return self._scalar(node, f"{where} {dotted(at)}")

    def _scalar(self, node: Node, where: str) -> Any:
        if node.tag in (_TAG + "str", _TAG + "timestamp"):
            return str(node.value)
        if node.tag not in _PLAIN:
            raise SpecError(f"{where}: must be plain YAML, got a value tagged {node.tag}")
        try:
            return self._constructor.construct_object(node)
        except (ValueError, LookupError, OverflowError, YAMLError):
            kind = str(node.tag).removeprefix(_TAG)
            raise SpecError(f"{where}: cannot be read as a value ({kind}), got {shown(node.value)}") from None

    def _mapping(self, node: MappingNode, at: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, str] = {}
        for key_node, value_node in self._merged(node, at):
            where = self._at(key_node)
            if not isinstance(key_node, ScalarNode) or key_node.tag == _TAG + "null":
                raise SpecError(f"{where} {dotted(at)}: a key must be text".replace(" : ", ": "))
            key = str(key_node.value)
            if key in found:
                raise SpecError(f"{where} {dotted((*at, key))}: duplicate key, first given at {first[key]}")
            first[key] = where
            found[key] = self._value(value_node, (*at, key), where)
        return found

    def _merged(self, node: MappingNode, at: Place) -> list[tuple[Node, Node]]:
        """Keys and values, those of `<<` first where the mapping itself does not give them; each mapping just once."""
        if id(node) in self._merges:
            if (known := self._merges[id(node)]) is None:
                raise SpecError(f"{self._at(node)} {dotted((*at, '<<'))}: merges itself")
            return known
        self._merges[id(node)] = None
        merged: dict[str, tuple[Node, Node]] = {}
        own = [pair for pair in node.value if pair[0].tag != _TAG + "merge"]
        for key, value in (pair for pair in node.value if pair[0].tag == _TAG + "merge"):
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(source, MappingNode):
                    raise SpecError(f"{self._at(key)} {dotted((*at, '<<'))}: must be a mapping or a list of mappings")
                for pair in self._merged(source, at):
                    merged.setdefault(str(pair[0].value), pair)
        given = {str(key.value) for key, _ in own}
        found = [*(pair for key, pair in merged.items() if key not in given), *own]
        self._merges[id(node)] = found
        return found

    def _at(self, node: Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}" if node.start_mark else self.name

    def _copied(self, value: Any, at: Place) -> Any:
        """The same for values that came from Python."""
        self._lines[at] = self.name
        if len(at) > MOST_LEVELS:
            raise SpecError(f"{self.name} {dotted(at[:3])}...: is nested too deeply, at most {MOST_LEVELS} levels")
        if isinstance(value, Mapping):
            return {str(key): self._copied(item, (*at, str(key))) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._copied(item, (*at, place)) for place, item in enumerate(value)]
        if isinstance(value, Path):
            return str(value)
        return value.item() if hasattr(value, "item") else value  # numpy's scalars

    def _override(self, override: str) -> None:
        path, equals, text = override.partition("=")
        where = f"--set {masked(override if override.isprintable() else repr(override))}"
        keys = re.findall(r"[^.\[\]\s]+", path)
        if not equals or not keys:
            raise SpecError(f"{where}: must be key.path=value, such as search.trials=8")
        try:
            value = Source(f"{text}\n").tree
        except SpecError as error:
            reason = re.sub(r"^spec[:\d]*: (is not YAML: )?", "", str(error))
            raise SpecError(f"{where}: the value is no YAML ({reason})") from None
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


def _text(path: Path) -> str:
    """What is in a file, which may be a pipe. Raises OSError, UnicodeDecodeError, SpecError where there is too much."""
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (RuntimeError, ValueError) as error:  # no such home directory, a null character in the path
        raise OSError(str(error)) from None
    if len(content) > MOST_BYTES:
        raise SpecError(f"{path}: a spec may have at most {MOST_BYTES} bytes")
    return content.decode("utf-8-sig")


def _line_of(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f":{mark.line + 1}" if mark else ""


_TOKENS = {
    "'<stream end>'": "the end of the text",
    "'<document start>'": "'---'",
    "'<block end>'": "the end of a block",
    "'<scalar>'": "a value",
    "'<anchor>'": "an anchor",
    "'<alias>'": "an alias",
    "'<tag>'": "a tag",
    "('<block mapping start>',)": "a key",
    "'<block mapping start>'": "a key",
    "'<block sequence start>'": "a list",
}
"""What ruamel calls the pieces of a text, and what a person does."""


def _reason(error: MarkedYAMLError) -> str:
    """What ruamel says, with the place where that began which is not ended."""
    text = str(error.problem or error.context)
    for token, words in _TOKENS.items():
        text = text.replace(token, words)
    began, found = error.context_mark, error.problem_mark
    if error.problem and error.context and began and found and began.line != found.line:
        text += f" ({error.context}, which began in line {began.line + 1})"
    return text


def _bad_byte(error: UnicodeDecodeError) -> str:
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"{error.object[error.start]:#04x} in line {line}"


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
