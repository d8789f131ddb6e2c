"""The source of plugins, taken along to workers: read here, imported there without a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from orchestrator.errors import UserError
from orchestrator.identity import first_party, folder_of, module_source
from orchestrator.plugins.admission import Plugin, admitted, receive
from orchestrator.provenance import PACKAGES

LIMIT = 20 * 2**20  # bytes: it goes to every worker
LEFT_HERE = {"__pycache__", "build", "dist", "node_modules", "results", "venv"}  # and whatever begins with a dot


@dataclass(frozen=True)
class Module:
    """One file; `origin` is where it lay."""

    name: str
    source: bytes
    is_package: bool
    origin: str

    @property
    def path(self) -> str:
        """Where it lies below the folder from which its package is imported."""
        return self.name.replace(".", "/") + ("/__init__.py" if self.is_package else ".py")


@dataclass(frozen=True)
class Luggage:
    """What a worker needs to make a sweep's classes."""

    plugins: tuple[Plugin, ...] = ()
    modules: tuple[Module, ...] = ()

    def unpack(self) -> None:
        """Let the plugins in, in a process that may have neither their files nor their folders.

        Raises UserError where one that is installed has another source here.
        """
        known = {plugin.module: plugin for plugin in admitted()}
        coming = [plugin for plugin in self.plugins if known.get(plugin.module) != plugin]
        if coming:
            sys.meta_path.insert(0, Carried(self.modules))
        for plugin in coming:
            try:
                module = importlib.import_module(plugin.module)
            except ModuleNotFoundError as error:
                raise UserError(f"plugin {plugin.module}: is not installed on this node: {error}") from None
            if not plugin.travels and module_source(plugin.module) != plugin.source:
                raise UserError(f"plugin {plugin.module}: is not the same on every node; install the same on all")
            receive(plugin, module)


def luggage() -> Luggage:
    """All plugins of this process, with the source of those that are not installed.

    Whole packages travel, since what a syntax tree does not show may be imported too. Raises UserError where the whole
    is larger than `LIMIT`.
    """
    plugins = admitted()
    tops = {name.partition(".")[0] for plugin in plugins if plugin.travels for name in first_party(plugin.module)}
    modules = tuple(module for top in sorted(tops - set(PACKAGES)) for module in _modules(top))
    if (size := sum(len(module.source) for module in modules)) > LIMIT:
        raise UserError(f"plugins: {size / 2**20:.0f} MiB of source would travel, at most {LIMIT >> 20} may")
    return Luggage(plugins, modules)


class Carried(MetaPathFinder, InspectLoader):
    """Imports modules from their source in memory, before any that lie on this machine."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self._modules = {module.name: module for module in modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = self._modules.get(fullname)
        if module is None:
            return None
        spec = ModuleSpec(fullname, self, origin=module.origin, is_package=module.is_package)
        spec.has_location = True  # `__file__` is where it lay: on the same machine its data files are found
        if module.is_package:
            spec.submodule_search_locations = [str(Path(module.origin).parent)]
        return spec

    def get_code(self, fullname: str) -> CodeType:
        module = self._modules[fullname]
        return self.source_to_code(module.source, module.origin)

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._modules[fullname].source)

    def is_package(self, fullname: str) -> bool:
        return self._modules[fullname].is_package


def _modules(top: str) -> Iterator[Module]:
    """The files of a top-level module or package."""
    folder = folder_of(top)
    if folder is None:
        return
    if (folder / f"{top}.py").is_file() and not (folder / top / "__init__.py").is_file():
        path = folder / f"{top}.py"
        yield Module(top, path.read_bytes(), False, str(path))
        return
    files = {_module_name(path.relative_to(folder)): path for path in sorted((folder / top).rglob("*.py"))}
    files = {name: path for name, path in files.items() if not LEFT_HERE & set(name.split("."))}
    for name, path in files.items():
        yield Module(name, path.read_bytes(), path.name == "__init__.py", str(path))
    above = {name.rpartition(".")[0] for name in files if all(part.isidentifier() for part in name.split("."))}
    for name in sorted(above - {"", *files}):  # packages without an __init__
        yield Module(name, b"", True, str(folder.joinpath(*name.split("."), "__init__.py")))


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
