"""What makes two trials the same: ids from content, never from names, order or the way a number is written."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.threat import Threat

FLOORS = ("attacks", "defenses")
OWN = "orchestrator"  # of which no trial depends, though a plugin may import from it


def trial_id(
    dataset_fingerprint: str,
    network: Mapping[str, Any],
    defense: Mapping[str, Any],
    training: Mapping[str, Any],
    threat: Threat | None,
    seed: int,
    source: str,
) -> str:
    """16 hex digits for one configuration trained with one seed; `threat` is None where training uses none.

    The blocks are those of a `Configuration`, defaults filled in; `source` is from `method_source`.
    """
    return _hash([config_id(dataset_fingerprint, network, defense, training, threat, source), seed])


def config_id(
    dataset_fingerprint: str,
    network: Mapping[str, Any],
    defense: Mapping[str, Any],
    training: Mapping[str, Any],
    threat: Threat | None,
    source: str,
) -> str:
    """The same without the seed: what the seeds of a finalist have in common."""
    used = None if threat is None else asdict(threat)
    return _hash([dataset_fingerprint, network, defense, training, used, source])


def attack_id(attack_json: str) -> str:
    """16 hex digits for one attack's settings, however their JSON text is laid out."""
    return _hash(json.loads(attack_json))


@functools.cache  # what runs was loaded once, so its source is read once
def method_source(*classes: type) -> str:
    """16 hex digits of the files that define `classes` and of every first-party module these import.

    First-party is `attacks`, `defenses`, the top-level package of each class (a plugin's), and what lies beside such a
    package unless it is installed. Imports are found in the syntax tree, inside functions too; nothing is imported.
    The `__init__` files of attacks and defenses import everything, so they are only asked from where the name taken
    from them comes.
    """
    return module_source(*(cls.__module__ for cls in classes))


def module_source(*names: str) -> str:
    """The same for modules."""
    return _hash({name: hashlib.sha256(content).hexdigest() for name, content in first_party(*names).items()})


def first_party(*names: str) -> dict[str, bytes]:
    """The files of these modules and of every first-party module these import, by the name of the module."""
    tops = {name.partition(".")[0] for name in names}
    folders = {folder_of(top) for top in tops.difference(FLOORS) if not is_library(top)}
    is_ours = functools.cache(
        lambda top: top in {*FLOORS, *tops} or (top != OWN and folder_of(top) in folders - {None})
    )
    files: dict[str, bytes] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or name in files or _is_facade(name, path):
            continue
        files[name] = path.read_bytes()
        waiting += [found for found in _imports(files[name], name, path) if is_ours(found.partition(".")[0])]
    return files


def folder_of(top: str) -> Path | None:
    """The folder in which a top-level module or package lies; None for what has no place."""
    path = _file(top)
    if path is not None:
        return path.parent.parent if path.name == "__init__.py" else path.parent
    try:
        spec = importlib.util.find_spec(top) if top not in ("", "__main__") else None
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]).parent if places else None  # a package without an __init__


def is_library(name: str) -> bool:
    """Whether a module is installed, or Python's own: then what lies beside it is somebody else's."""
    folder = folder_of(name.partition(".")[0])
    if folder is None or {"site-packages", "dist-packages"} & set(folder.parts):
        return True
    return folder.resolve() in {Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")}


def _hash(value: Any) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    """Tuples as lists and whole floats as integers: 1, 1.0 and 1e0 are one number."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_facade(name: str, path: Path | None) -> bool:
    return path is not None and path.name == "__init__.py" and name.partition(".")[0] in FLOORS


def _imports(source: bytes, module: str, path: Path) -> Iterator[str]:
    """The dotted names a file may import: `from a import b` gives both a and a.b, of which one or both are modules."""
    for origin, names in _statements(source, module, path):
        yield origin
        yield from (f"{origin}.{name}" for name in names)
        facade = _file(origin)
        if facade is not None and _is_facade(origin, facade):
            for behind, given in _statements(facade.read_bytes(), origin, facade):
                if not set(names).isdisjoint(given.values()):
                    yield behind


def _statements(source: bytes, module: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The import statements of a file: the module, absolute, and what the names taken from it are called here."""
    package = (module if path.name == "__init__.py" else module.rpartition(".")[0]).split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, {}) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            names = {alias.name: alias.asname or alias.name for alias in node.names}
            yield ".".join([*above, *filter(None, [node.module])]), names


def _file(name: str) -> Path | None:
    """The source file of a module, found from where its top-level package lies; None for what is no module."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if loaded:
        return Path(loaded) if loaded.endswith(".py") else None
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top) if top not in ("", "__main__") else None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None
