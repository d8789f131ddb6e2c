"""Claims about the lock on a run directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.driver_lock import driving
from orchestrator.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.driver_lock import driving
with driving(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with driving(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} on"), driving(tmp_path):
        pass


def test_the_lock_is_free_again_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), driving(tmp_path):
        _ = 1 / 0
    with driving(tmp_path):
        pass


def test_a_killed_driver_leaves_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid}"), driving(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with driving(tmp_path):
        pass
