"""Plugins that are installed: distributions with an entry point in the group `robustsweep.plugins`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

GROUP = "robustsweep.plugins"


def short_names() -> dict[str, EntryPoint]:
    """The entry points that lead to a class, by the name they give it."""
    return {found.name: found for found in entry_points(group=GROUP) if found.attr}


def is_installed(module: str) -> bool:
    """Whether a module lies in a package to which some entry point leads: who installed that has named it."""
    return module.partition(".")[0] in {found.module.partition(".")[0] for found in entry_points(group=GROUP)}


def modules() -> list[str]:
    """The modules to which entry points lead."""
    return sorted({found.module for found in entry_points(group=GROUP)})
