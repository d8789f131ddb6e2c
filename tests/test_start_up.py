"""Claims about what a command loads before it answers: torch and Ray take seconds, and many answers need neither."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from inline import SYNTHETIC, Inline

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ["torch", "ray", "sklearn", "torchvision", "optuna", "scipy", "pandas", "pyarrow"]
CALL = f"""
import sys
from orchestrator.cli import main
try:
    main()
finally:
    print("loaded:", *sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = {**SYNTHETIC, "training": {"epochs": 1}, "search": {"trials": 1}}
    return Inline(tmp_path_factory.mktemp("store") / "tiny", spec).run(steps=1).root


def loaded(code: int, *arguments: object) -> set[str]:
    """The heavy packages that `robustsweep` loads in a process of its own, which ends with `code`."""
    call = [sys.executable, "-c", CALL, *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(call, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode == code, ended.stderr
    return set(ended.stderr.splitlines()[-1].removeprefix("loaded:").split())


def test_help_loads_nothing() -> None:
    assert loaded(0, "--help") == set()


@pytest.mark.parametrize("command", ["status", "leaderboard"])
def test_who_reads_a_run_loads_what_reads_tables(command: str, finished: Path) -> None:
    assert loaded(0, command, finished) == {"pandas", "pyarrow"}


def test_check_loads_no_ray_and_no_tables() -> None:
    assert loaded(0, "check", ROOT / "sweeps" / "quickstart.yaml") <= {"torch", "optuna", "pyarrow"}


def test_a_spec_that_is_not_there_is_said_before_torch_and_ray_are_loaded() -> None:
    assert not loaded(2, "run", "nowhere.yaml") & {"torch", "ray"}
