"""One sweep as a user runs it: the command in a session of its own, killed, and given again until it ends well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills.processes import Process, below, is_alive
from kills.victims import is_agent

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Doomed:
    """Processes of a driver that was killed at a moment of the monotonic clock: after `seconds` none may be left."""

    processes: list[Process]
    killed: float
    seconds: float
    are_agents: bool


@dataclass
class Running:
    """A run directory below `store`, and the driver at work on it, if any."""

    spec: dict[str, Any]
    store: Path
    environment: dict[str, str]
    address: str | None = None
    orphan_seconds: float = 30.0  # how long anything may outlive its driver
    agent_seconds: float = 100.0  # Ray's own agents try for 60 s to tell a dead Ray of its death; 0: never mind them
    starts: int = 0
    longest_orphan: float = 0.0
    longest_agent: float = 0.0
    wrong: list[str] = field(default_factory=list)
    driver: subprocess.Popen[bytes] | None = None
    doomed: list[Doomed] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.store / str(self.spec["name"])

    @property
    def log(self) -> Path:
        return self.store / f"{self.spec['name']}.log"

    def start(self) -> None:
        """Give the command, the same each time."""
        self.store.mkdir(parents=True, exist_ok=True)
        path = self.store / f"{self.spec['name']}.yaml"
        path.write_text(json.dumps(self.spec))  # JSON is YAML
        command = [sys.executable, "-m", "orchestrator", "run", str(path), "--store", str(self.store)]
        command += ["--address", self.address] if self.address else []
        python_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": python_path} | self.environment
        self.starts += 1
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts}\n".encode())
            self.driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def poll(self) -> int | None:
        """The exit code of the driver if it has ended. Sees to it that what was killed goes away in time."""
        now = time.monotonic()
        for doomed in list(self.doomed):
            left = [process for process in doomed.processes if is_alive(process)]
            if not left:
                name = "longest_agent" if doomed.are_agents else "longest_orphan"
                setattr(self, name, max(getattr(self, name), now - doomed.killed))
                self.doomed.remove(doomed)
            elif now > doomed.killed + doomed.seconds:
                titles = "; ".join(f"{process.pid} {process.title[:80]}" for process in left)
                self.wrong.append(f"{len(left)} processes outlive their driver by {doomed.seconds:g} s: {titles}")
                self.doomed.remove(doomed)
        assert self.driver is not None
        return self.driver.poll()

    def kill_driver(self, workers: list[Process], also_workers: bool = False) -> None:
        """SIGKILL the driver; with `also_workers` all of its processes in one go, as when a machine dies."""
        assert self.driver is not None
        doomed = [*below([self.driver.pid]), *workers]
        if also_workers:
            for process in doomed:
                process.kill()
        self.driver.kill()
        self.driver.wait()
        for are_agents, seconds in ((False, self.orphan_seconds), (True, self.agent_seconds)):
            these = [process for process in doomed if is_agent(process) == are_agents]
            if are_agents and not self.agent_seconds:
                continue
            self.doomed.append(Doomed(these, time.monotonic(), seconds, are_agents))

    def last_words(self, most: int = 1500) -> str:
        return self.log.read_text(errors="replace")[-most:]
