"""From what `--plugin` was given to an imported module: a dotted name, or the path of a file."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from orchestrator.errors import UserError
from orchestrator.provenance import PACKAGES

MOST_FRAMES = 3  # of a traceback that are shown


def imported(given: str) -> ModuleType:
    """The module, found from the working directory too, after all that is installed.

    Raises UserError where there is none, where another has its name, or with the end of the traceback where it breaks.
    """
    name, folder = located(given)
    if name.partition(".")[0] in PACKAGES:
        raise UserError(f"--plugin {given}: {name.partition('.')[0]} is robustsweep's own; give yours another name")
    _append(folder)
    _refuse_hidden(given, name, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(_absent(given, name, error.name)) from None
        raise UserError(f"--plugin {given}: cannot be imported\n{told(error)}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"--plugin {given}: cannot be imported\n{told(error)}") from None


def located(given: str) -> tuple[str, Path]:
    """The dotted name of a plugin, and the folder from which it is found; of a file in a package, that of the package.

    Raises UserError for what is neither a name nor a Python file.
    """
    if not given.endswith(".py") and "/" not in given:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", given):
            raise UserError(
                f"--plugin {given}: must be a module such as my_package.my_module, or a file such as my_module.py"
            )
        return given, Path.cwd()
    path = Path(given).expanduser().resolve()
    if not path.is_file() or path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(f"--plugin {given}: must be a Python file that is there, or a module such as my_module")
    names, folder = ([] if path.stem == "__init__" else [path.stem]), path.parent
    while (folder / "__init__.py").is_file():
        names, folder = [folder.name, *names], folder.parent
    return ".".join(names), folder


def told(error: BaseException) -> str:
    """The end of a traceback: the last lines of the user's own code, and the error."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    lines = [*traceback.format_list(frames[-MOST_FRAMES:]), *traceback.format_exception_only(error)]
    return "".join(lines).rstrip()


def _append(folder: Path) -> None:
    """Last, so that no file there takes the place of a module that somebody else means."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _refuse_hidden(given: str, name: str, folder: Path) -> None:
    """Raises UserError where the name of a file leads to another module."""
    if not given.endswith(".py"):
        return
    top = name.partition(".")[0]
    loaded = sys.modules.get(top)
    spec = importlib.util.find_spec(top) if loaded is None else loaded.__spec__
    origin = None if spec is None else spec.origin
    places = [] if origin is None else [Path(origin).resolve().parent, Path(origin).resolve().parent.parent]
    if folder not in places:
        raise UserError(f"--plugin {given}: the name {top} already stands for {origin or 'another module'}; rename it")


def _absent(given: str, name: str, missing: str) -> str:
    where = f"there is no module {missing}, neither in {Path.cwd()} nor where Python looks for modules"
    path = Path(*name.split(".")).with_suffix(".py")
    near = next((found for found in sorted(Path.cwd().glob(f"*/{path}"))), None)
    hint = f"; there is a file {near.relative_to(Path.cwd())}, which may be given as it is" if near else ""
    return f"--plugin {given}: {where}{hint}"
