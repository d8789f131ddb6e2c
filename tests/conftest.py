"""What all tests share: where the real images lie, and a Ray that only this machine can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

TESTS = str(Path(__file__).parent)
SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """MNIST and CIFAR-10, where they are beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no shared/data beside the checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Two CPUs of Ray on loopback, for all tests of the session."""
    import ray

    from orchestrator.cluster.session import TUNE_SETTINGS

    os.environ.update(TUNE_SETTINGS)
    os.environ["PYTHONPATH"] = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])  # workers import from here
    ray.init(
        num_cpus=2, _node_ip_address="127.0.0.2", include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()
