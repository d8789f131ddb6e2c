"""Who may be killed: the roles that the processes of a sweep play, told from their titles."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kills.processes import Process

DRIVER, TRAINER, EVALUATOR, GROUP, NODE = "driver", "trainer", "evaluator", "group", "node"
VICTIMS = (DRIVER, TRAINER, EVALUATOR, GROUP, NODE)
_WORK = re.compile(r"ray::(?!IDLE|\S*Agent)(\S+)")  # an actor or a task at its place; idle workers and agents are none

_AGENT = re.compile(r"ray::\S*Agent")


def role_of(process: Process) -> str | None:
    """`TRAINER` or `EVALUATOR` for a Ray worker that is one; None for anything else."""
    found = _WORK.match(process.title)
    if found is None:
        return None
    return EVALUATOR if "evaluator" in found[1].lower() else TRAINER


def is_agent(process: Process) -> bool:
    """Whether it is one of the two helpers of a Ray node that do no work of a sweep."""
    return _AGENT.match(process.title) is not None


def playing(role: str, processes: Iterable[Process]) -> list[Process]:
    return [process for process in processes if role_of(process) == role]


def workers(processes: Iterable[Process]) -> list[Process]:
    """All that do a driver's work: they must not outlive it for long."""
    return [process for process in processes if role_of(process) is not None]
