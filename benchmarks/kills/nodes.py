"""A Ray cluster on this machine, one `ray start` per node, whose nodes can be killed and replaced."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from kills.processes import Process, end, subtree

HEAD_ADDRESS = "127.0.0.1"
UP = "Ray runtime started"
ATTEMPTS = 4  # a node that is not up within the 30 s that Ray gives it is started again


class Cluster:
    """A head without CPUs, which survives, and `count` nodes of `cpus` each, which do not.

    `environment` holds what nodes and drivers need: a token of their own and a place for Ray's files (`scratch`).
    """

    def __init__(self, scratch: Path, environment: dict[str, str], count: int = 4, cpus: int = 1) -> None:
        self._scratch, self._cpus, self._started = scratch, cpus, 0
        self.environment = {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
        self.port = _free_port()
        head = ["--head", f"--node-ip-address={HEAD_ADDRESS}", f"--port={self.port}", "--include-dashboard=false"]
        self._logs: dict[int, Path] = {}  # by process
        self._head = self._start([*head, "--num-cpus=0"])
        if not self._comes_up(self._head):
            raise RuntimeError(f"the head of the cluster did not come up:\n{self._said(self._head)[-1500:]}")
        self.nodes: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            self.nodes.append(self._started_node())

    @property
    def address(self) -> str:
        return f"{HEAD_ADDRESS}:{self.port}"

    @property
    def pids(self) -> set[int]:
        """Those whose deaths are waited for here."""
        return {self._head.pid, *(node.pid for node in self.nodes)}

    def processes_of(self, place: int) -> list[Process]:
        return subtree(self.nodes[place].pid)

    def replace(self, place: int) -> list[Process]:
        """Kill a node with all its workers at once, and put a new one in its place; what was killed."""
        victims = self.processes_of(place)
        old = self.nodes[place]
        end(victims)
        old.wait()
        self.nodes[place] = self._start_node()
        return victims

    def tend(self) -> None:
        """Start again what did not come up."""
        for place, node in enumerate(self.nodes):
            if node.poll() is not None:
                self.nodes[place] = self._start_node()

    def close(self) -> None:
        for process in (*self.nodes, self._head):
            end(subtree(process.pid))
            process.wait()

    def _start_node(self) -> subprocess.Popen[bytes]:
        return self._start([f"--address={self.address}", f"--num-cpus={self._cpus}"])

    def _start(self, options: list[str]) -> subprocess.Popen[bytes]:
        self._started += 1
        ray = str(Path(sys.executable).parent / "ray")
        command = [ray, "start", "--block", "--disable-usage-stats", "--num-gpus=0", *options]
        command += ["--object-store-memory=100000000"]
        path = self._scratch / f"node-{self._started}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                command, env=os.environ | self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self._logs[process.pid] = path
        return process

    def _started_node(self) -> subprocess.Popen[bytes]:
        """One after the other, since they share few cores. Raises RuntimeError for one that will not come up."""
        for _ in range(ATTEMPTS):
            node = self._start_node()
            if self._comes_up(node):
                return node
            end(subtree(node.pid))
        raise RuntimeError(f"a node of the cluster did not come up:\n{self._said(node)[-1500:]}")

    def _comes_up(self, node: subprocess.Popen[bytes], seconds: float = 120.0) -> bool:
        deadline = time.monotonic() + seconds
        while UP not in self._said(node):
            if node.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def _said(self, node: subprocess.Popen[bytes]) -> str:
        return self._logs[node.pid].read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HEAD_ADDRESS, 0))
        return int(probe.getsockname()[1])
