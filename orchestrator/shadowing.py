"""Our `attacks` and `defenses` have common names: a foreign package that hides one of them is named and refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from orchestrator.errors import UserError

FLOORS = ("attacks", "defenses")


def refuse_foreign_packages() -> None:
    """Raises UserError where importing `attacks` or `defenses` would not give the ones beside this package."""
    ours = Path(__file__).resolve().parent.parent
    for name in FLOORS:
        spec = importlib.util.find_spec(name)
        seen = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent
        if seen != ours / name:
            where = seen or (list(spec.submodule_search_locations or ()) if spec else "nowhere")
            raise UserError(
                f"the package {name!r} that Python finds is {where}, not robustsweep's {ours / name}: rename or remove "
                "it, or run from another directory"
            )
