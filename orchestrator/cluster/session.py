"""Joins a running Ray cluster, or starts one on this machine, with token authentication and without a dashboard."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from orchestrator.cluster.allocation import Node
from orchestrator.cluster.token_auth import no_entry
from orchestrator.errors import UserError

LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's outer address, and leaves this one alone
SECONDS = 10.0  # how long a cluster may take to answer at all

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
    where = "this machine" if address is None else f"--address {address}"
    if address is not None:
        _refuse_wrong(address)
    loopback: dict[str, Any] = {"_node_ip_address": LOOPBACK} if sys.platform == "linux" else {}
    joining = {"address": address}
    starting = {"address": "local", "include_dashboard": False, **loopback}  # "local": do not join what may run here
    try:
        with _keeping_sigterm():
            ray.init(**(joining if address else starting), **quiet)
    except AuthenticationError:
        raise UserError(no_entry(where)) from None
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        raise UserError(
            no_entry(f"{where}: no Ray cluster lets us in ({error}). Where one runs, it may be this")
            if address != "auto"
            else f"{where}: no Ray cluster runs on this machine; start one with `ray start`, or leave --address out"
        ) from None


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """What SIGTERM does here stays what it was: Ray takes it over, and then it aborts the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _refuse_wrong(address: str) -> None:
    """Raises UserError where an address is not of a kind to join, or nothing listens there: Ray waits for minutes."""
    if address == "auto":
        return
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:/\s]+)):(\d{1,5})", address)
    if match is None:
        hint = "; to send the sweep to a dashboard, use `robustsweep submit`" if "://" in address else ""
        raise UserError(f"--address {address}: must be auto or HOST:PORT, such as head:6379{hint}")
    try:
        socket.create_connection((match[1] or match[2], int(match[3])), timeout=SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: nothing answers there ({error})") from None


def _nodes() -> list[Node]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0), node["NodeID"])
        for node in nodes
        if node["Alive"]
    ]
