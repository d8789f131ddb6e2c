"""The way back from a configuration to the holes of a space: with which values it would be one of that space."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.composition import KEYS, composed
from orchestrator.holes import Scalar
from orchestrator.space import Space
from orchestrator.template import Fields, Fixed, Items, Leaf, Node, Pick

Searched = Collection[str] | None  # paths; None where nothing may differ: what is chosen must be one option
MAY_DIFFER = "training"  # settings of it that neither of two sweeps searches: a shorter training still tells much


class NoFit(ValueError):
    """A configuration is none of a space: says what is in the way."""


def params_of(space: Space, blocks: Mapping[str, Any], searched: Collection[str]) -> dict[str, Scalar]:
    """The value of each hole that is open, by path; `blocks` are network, defense and training of another sweep.

    `searched` are the paths of the holes that sweep had. Settings without a hole here must be the same, but for those
    of the training that were fixed there too. Raises NoFit.
    """
    found: dict[str, Scalar] = {}
    _fit(space.template, _laid_out(space, blocks), "", searched, found)
    ours = space.configure(lambda path, hole: found[path])
    seed = (blocks["defense"].get("base") or {}).get("seed", 0)
    if (ours.network, composed(ours.defense, ours.training, seed)[0]) != (blocks["network"], blocks["defense"]):
        raise NoFit("a value that refers to another, or the base, is another")
    return found


def _laid_out(space: Space, blocks: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks with what composes with any defense where the space has it: a trial has all in the defense's."""
    node = space.template.fields["training"] if isinstance(space.template, Fields) else None
    moved = [key for key in KEYS if isinstance(node, Fields) and key in node.fields]
    defense = {key: value for key, value in blocks["defense"].items() if key not in moved}
    training = blocks["training"] | {key: blocks["defense"].get(key) for key in moved}
    return {**blocks, "defense": defense, "training": training}


def _fit(node: Node, value: Any, path: str, searched: Searched, found: dict[str, Scalar]) -> None:
    """Note what the holes of a node are where it gives `value`; `path` is its place in the blocks."""
    if path in ("defense.base", "training.base"):  # a trial's says more than was written: compared in the end
        if any(True for _ in node.holes()):
            raise NoFit("a base with holes of its own")
        return
    if isinstance(node, Leaf):
        try:
            found[node.hole.path] = node.hole.checked(value)
        except ValueError:
            raise NoFit(f"{node.hole.path} is outside its range here") from None
    elif isinstance(node, Pick):
        _pick(node, value, path, found)
    elif isinstance(node, Items):
        if not isinstance(value, list) or len(value) != len(node.items):
            raise NoFit(f"{path} is another")
        for place, item in enumerate(node.items):
            _fit(item, value[place], f"{path}.{place}", searched, found)
    elif isinstance(node, Fields):
        _fit_fields(node, value, path, searched, found)
    elif isinstance(node, Fixed) and value != node.value and not _may_differ(path, searched):
        raise NoFit(f"{path} is another")  # what refers to another value follows from the rest


def _fit_fields(node: Fields, value: Any, path: str, searched: Searched, found: dict[str, Scalar]) -> None:
    if not isinstance(value, Mapping) or value.get("name") != node.name or set(value) - {"name"} != set(node.fields):
        raise NoFit(f"{path or 'it'} is another")
    for key, inner in node.fields.items():
        _fit(inner, value[key], f"{path}.{key}".removeprefix("."), searched, found)


def _pick(node: Pick, value: Any, path: str, found: dict[str, Scalar]) -> None:
    """The first option that can give the value; where just one has its name, what is in the way there is said."""
    reasons = []
    for label, option in zip(node.hole.labels, node.options, strict=True):
        inside: dict[str, Scalar] = {}
        try:
            _fit(option, value, path, None, inside)
        except NoFit as reason:
            if isinstance(option, Fields) and isinstance(value, Mapping) and option.name == value.get("name"):
                reasons.append(reason)
            continue
        found |= {node.hole.path: label, **inside}
        return
    raise reasons[0] if len(reasons) == 1 else NoFit(f"{node.hole.path} is none of its options here")


def _may_differ(path: str, searched: Searched) -> bool:
    is_free = searched is not None and path.startswith(f"{MAY_DIFFER}.")
    return is_free and not any(f"{name}.".startswith(f"{path}.") for name in searched or ())
