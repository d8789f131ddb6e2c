"""Claims about joining a Ray cluster or starting one: a wrong address is a sentence at once, a local Ray is its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cluster.session import _start
from orchestrator.cluster.token_auth import no_entry
from orchestrator.errors import UserError

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("head", "must be auto or HOST:PORT"),
        ("head:port", "must be auto or HOST:PORT"),
        ("http://head:8265", "use `robustsweep submit`"),
        ("ray://head:10001", "must be auto or HOST:PORT"),
        ("127.0.0.1:99999", "nothing answers there"),
    ],
)
def test_a_wrong_address_is_refused_before_ray_is_asked(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as raised:
        _start(address)
    assert f"--address {address}" in str(raised.value)


def test_where_nothing_listens_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match="nothing answers there"):
        _start(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "RAY_AUTH_MODE is not set to token here"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "no token is set here"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "hidden-value"}, "not the cluster's"),
    ],
)
def test_a_cluster_that_asks_for_a_token_is_answered_with_what_to_set(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = no_entry("--address head:6379")
    assert words in said
    assert "RAY_AUTH_TOKEN_PATH" in said
    assert "hidden-value" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_local_run_starts_a_ray_of_its_own_on_loopback_wherever_ray_address_points() -> None:
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    call = [sys.executable, str(TESTS / "listening.py")]
    ended = subprocess.run(
        call, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["nodes"] == 1
    assert found["gcs"].startswith("127.0.0.2:")
    assert {"gcs_server", "raylet"} <= {command for command, _, _ in found["listening"]}
    assert 8265 not in {port for _, _, port in found["listening"]}  # no dashboard


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.parity)])
def test_a_sweep_that_is_told_to_end_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    call = [
        sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from orchestrator.cli import main; main()", "run", "sweeps/quickstart.yaml", "--store", str(tmp_path),
        "--set", "training.epochs=10000", "--set", "scheduler.grace_epochs=1", "--set", "search.trials=4",
    ]  # fmt: skip
    with subprocess.Popen(call, cwd=TESTS.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        line = next(line for line in run.stdout if line.startswith("1 trial") or "at a time" in line)
        assert line
        while run.poll() is None and not (tmp_path / "quickstart" / "asks").is_dir():
            time.sleep(0.1)
        run.send_signal(number)
        said = run.stdout.read()
    assert run.returncode == 130, said
    assert "To go on" in said
