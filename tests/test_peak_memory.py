"""Claims about the peak memory on a trial's row: it is the trial's own, whatever its worker did before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from inline import SYNTHETIC, Inline

from orchestrator.peak_memory import forget_peak, peak_memory_bytes
from orchestrator.training import Trainer

LARGE = 400 * 2**20
on_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")


def use_memory() -> None:
    """More than anything else here does, and for a moment."""
    assert len(b"\1" * LARGE) == LARGE


@on_linux
def test_a_peak_is_forgotten() -> None:
    before = peak_memory_bytes("cpu")
    use_memory()
    assert peak_memory_bytes("cpu") >= LARGE
    forget_peak("cpu")
    assert peak_memory_bytes("cpu") < before + LARGE // 2


@on_linux
def test_a_small_trial_after_a_large_one_reports_its_own_peak(tmp_path: Path) -> None:
    run = Inline(tmp_path / "tiny", {**SYNTHETIC, "search": {"trials": 1}, "scheduler": {"grace_epochs": 1}})
    peaks = []
    for extra in (use_memory, lambda: None):
        plan = run.sweep.next_trial()
        assert plan is not None
        trainer = Trainer(plan, run.sweep.rule(plan.cell), run.data[plan.cell], run.store.files, "cpu")
        extra()
        trainer.advance()
        peaks.append(trainer.facts()["peak_memory_bytes"])
    assert peaks[0] - peaks[1] > LARGE // 2


@on_linux
def test_a_peak_is_not_that_of_the_process_before() -> None:
    """A process begins with the peak of the one that started it, as getrusage tells it."""
    use_memory()
    code = "from orchestrator.peak_memory import peak_memory_bytes; print(peak_memory_bytes('cpu'))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(ended.stdout) < LARGE + 400 * 2**20


def test_where_the_system_does_not_let_us_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refused)
    forget_peak("cpu")
    monkeypatch.setattr(Path, "read_text", refused)
    assert peak_memory_bytes("cpu") > 10 * 2**20
