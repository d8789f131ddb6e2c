"""Joins a running Ray cluster, or starts one on this machine that only this machine can reach."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from orchestrator.cluster.allocation import Node
from orchestrator.errors import UserError

LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's outer address, and leaves this one alone

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store is the record
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # no periodic snapshots of the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: Tune's own handler ends a run without saying so
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the only way to a silent Tune
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


@contextmanager
def connected(address: str | None) -> Iterator[list[Node]]:
    """The nodes of the cluster at `address`; without one, of a local cluster that ends with the block.

    A Ray that this process is connected to already is used and left running. Raises UserError where no
    cluster answers.
    """
    os.environ.update(TUNE_SETTINGS)
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield _nodes()
        return
    _start(address)
    try:
        yield _nodes()
    finally:
        ray.shutdown()


def _start(address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--address {address}: no Ray cluster answers there ({error})") from error
        return
    loopback: dict[str, Any] = {"_node_ip_address": LOOPBACK} if sys.platform == "linux" else {}
    ray.init(include_dashboard=False, **loopback, **quiet)


def _nodes() -> list[Node]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0), node["NodeID"])
        for node in nodes
        if node["Alive"]
    ]
