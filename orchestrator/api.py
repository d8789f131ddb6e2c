"""What `import orchestrator` offers: run a sweep, open one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.shadowing import refuse_foreign_packages

if TYPE_CHECKING:
    from orchestrator.analysis import Run

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def run(
    spec: str | Path | Mapping[str, Any],
    *,
    store: str | Path | None = None,
    address: str | None = None,
    trials: int | None = None,
    overrides: Sequence[str] = (),
    time_budget: str | float | None = None,
    plugins: Sequence[str] = (),
    console: Console | None = None,
) -> Run:
    """Run a sweep, or go on with it, and give its results.

    `spec` is a YAML file or a mapping, `overrides` are "key.path=value", `trials` overrides search.trials. Joins the
    Ray cluster at `address`, uses the one this process is connected to, or starts one on this machine. `time_budget`,
    in seconds or such as "30m", ends the search early. `plugins` are modules of your own, by name or file, whose
    classes the spec may name as `module:Class`. Raises UserError where the spec or the call is wrong.
    """
    from orchestrator.rundir import run_root
    from orchestrator.spec import load_spec

    refuse_foreign_packages()
    if plugins:
        from orchestrator.plugins.admission import admit

        admit(plugins)
    wanted = [*overrides, *([f"search.trials={trials}"] if trials is not None else [])]
    checked = load_spec(dict(spec) if isinstance(spec, Mapping) else spec, wanted)
    root = run_root(checked, store)
    budget = float("inf") if time_budget is None else seconds(time_budget)
    from orchestrator.analysis import load
    from orchestrator.cluster.run import run_sweep  # after all that may be wrong: it brings Ray, which takes seconds
    from orchestrator.progress import Progress

    run_sweep(checked, root, Progress(console or Console()), address, budget)
    return load(root)


def seconds(text: str | float) -> float:
    """A duration: a number of seconds, or a number with s, m, h or d. Raises UserError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(text))
    if match is None:
        raise UserError(f"--time-budget: must be a duration such as 90s, 30m or 8h, got {text!r}")
    return float(match[1]) * _UNITS[match[2] or "s"]
