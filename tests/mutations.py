"""Damage to specs, drawn from a seed: to the tree (keys, values, holes) or to the text (lines, indents, bytes)."""

from __future__ import annotations

import copy
import functools
import json
import random
from typing import Any

from ruamel.yaml import YAML

JUNK: list[Any] = [
    None, True, False, 0, -1, 0.5, 1e400, -1e400, float("nan"), 10**30, 1e-320, "", " ", "x", "8/0", "8/255", "~",
    "../x", "é", "\0", "a" * 300, [], [[]], {}, [None], {"": None}, {"name": []}, {"name": {}}, {"name": "pdg"}, "auto",
    {"choice": []}, {"choice": [{"choice": []}]}, {"uniform": ["a", {}]}, {"uniform": [0, 1], "step": 1e-300}, "1e3",
    {"log_uniform": [0, 1]}, {"int": [0, 10**20]}, {"int": [1, 3], "step": 0}, {"normal": [0] * 4}, {"grid": [1, "a"]},
    {"log_normal": [900, 1, 1e-300, 1e300]}, {"ref": "threat.eps"}, {"ref": "a.b.c"}, {"ref": "training.lr"}, [1, "a"],
    {"each": {"a": 1}}, {"choice": [1, {"int": [2, 9]}]}, {"name": "resnet", "depth": 8}, {"choice": ["mlp", "lenet"]},
]  # fmt: skip
WORDS = [
    "name", "choice", "each", "ref", "step", "uniform", "eps", "norm", "trials", "sampler", "threat", "matrix", "seed",
    "linf", "pgd", "pgd_at", "resnet", "attacks", "examples", "steps", "root", "lr", "epochs", "<<", "null", "-",
]  # fmt: skip
SPLINTERS = [
    "", "{", "}", "[", "]", ":", ": ", ",", "\n", " ", "- ", "&a ", "*a ", "!", "!!bool ", "!!set ", "\t", "'", '"',
    "#", "%", "|", ">", "@", "`", "\0", "\x07", "\x1b[31m", "\ufeff", "\u2028", "\ud7ff", "\x85", "---\n", "...\n",
    "<<: ", "1e999", "-.inf", ".nan", "=", "~", "\r",
]  # fmt: skip


def mutated(text: str, seed: int) -> str:
    """The text of a spec with one to three damages."""
    generator = random.Random(seed)
    for _ in range(generator.choice([1, 1, 1, 1, 2, 3])):
        damage = _in_the_tree if generator.random() < 0.65 else _in_the_text
        text = damage(text, generator)
    return text


def _in_the_tree(text: str, generator: random.Random) -> str:
    """What is no YAML any more is left as it is."""
    tree = copy.deepcopy(_parsed(text))
    if places := [place for place in _places(tree) if place]:
        _damage(tree, generator.choice(places), generator)
        return _written(tree)
    return text


@functools.cache
def _parsed(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception:  # ruamel has more kinds of errors than it documents
        return None


def _written(tree: Any) -> str:
    """YAML with a line for each section."""
    if not isinstance(tree, dict):
        return _flow(tree)
    return "".join(f"{_flow(key)}: {_flow(value)}\n" for key, value in tree.items())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return f".{value}" if value != value else repr(value).replace("inf", ".inf")
    return json.dumps(value, default=str)


def _damage(tree: Any, at: tuple[Any, ...], generator: random.Random) -> None:
    holder = tree
    for key in at[:-1]:
        holder = holder[key]
    value = holder[at[-1]]
    how = generator.choice([0, 0, 1, 2, 3, 3, 3, 4, 5])
    if how == 0:
        del holder[at[-1]]
    elif how == 1 and isinstance(holder, dict):
        holder[_misspelt(str(at[-1]), generator)] = holder.pop(at[-1])
    elif how == 2 and isinstance(holder, list):
        holder.insert(at[-1], copy.deepcopy(value))
    elif how == 3:
        holder[at[-1]] = _other(value, generator)
    elif how == 4:
        wraps = [
            [value],
            [value] * 3,
            {"choice": [value, value]},
            {"choice": [value]},
            {"name": value},
            {str(at[-1]): value},
        ]
        holder[at[-1]] = copy.deepcopy(generator.choice(wraps))
    else:
        holder[at[-1]] = copy.deepcopy(generator.choice(JUNK))


def _other(value: Any, generator: random.Random) -> Any:
    """A value of the same kind, or its text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return generator.choice(
            [-value, value * 1000, value / 1000, value * 1e9, value + 0.5, str(value), 0, value + 1]
        )
    if isinstance(value, str):
        return generator.choice([_misspelt(value, generator), value.upper(), [value], value * 2, value + " "])
    if isinstance(value, list):
        return generator.choice([value[::-1], value[:1], value[1:], value * 2, dict(enumerate(value)), str(value)])
    return generator.choice([list(value.items()), list(value), str(value)]) if isinstance(value, dict) else [value]


def _misspelt(word: str, generator: random.Random) -> str:
    at = generator.randrange(len(word) + 1)
    return generator.choice([word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], generator.choice(WORDS)])


def _in_the_text(text: str, generator: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at, line = generator.randrange(len(text) + 1), generator.randrange(len(lines))
    how = generator.randrange(8)
    if how == 0:
        return text[:at]
    if how == 1:
        return "".join(lines[:line] + lines[line + 1 :])
    if how == 2:
        return "".join([*lines[: line + 1], lines[line], *lines[line + 1 :]])
    if how == 3:
        other = generator.randrange(len(lines))
        lines[line], lines[other] = lines[other], lines[line]
        return "".join(lines)
    if how == 4:
        lines[line] = generator.choice([" ", "  ", "\t", "    - "]) + lines[line]
        return "".join(lines)
    if how == 5:
        lines[line] = lines[line].lstrip() if lines[line].startswith(" ") else lines[line].rstrip() + "}\n"
        return "".join(lines)
    width = generator.choice([0, 1, 1, 1, 5])
    return text[:at] + generator.choice(SPLINTERS) + text[at + width :]


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(found for key, item in items for found in _places(item, (*at, key)))]
