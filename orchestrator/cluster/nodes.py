"""What the other nodes of a cluster see, asked before a sweep starts: the same run directory, the same code."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.errors import UserError
from orchestrator.provenance import code_version

ANSWER_SECONDS = 90.0  # a worker's first start, with its runtime environment, is part of it
LATE_SECONDS = 5.0  # how long a shared file system may hide a new file
GONE = (NodeDiedError, TaskUnschedulableError, WorkerCrashedError)
MARKER = ".seen-by-all-"  # hidden: readers of the run directory pass it by


@dataclass(frozen=True)
class Answer:
    """What a node said, or why there is no answer."""

    node: str
    said: Any
    trouble: str | None = None
    may_be_gone: bool = False


def refuse_unshared(root: str, is_local: bool, seconds: float = ANSWER_SECONDS) -> None:
    """Raises UserError, naming the nodes, where others than this one do not see the run directory `root`.

    `is_local`: whether it is a path; object stores are seen from everywhere. Each other node looks for a file that is
    written here; nodes that do not answer within `seconds` are named too.
    """
    if not is_local or not other_nodes():
        return
    marker = Path(root) / f"{MARKER}{secrets.token_hex(8)}"
    marker.write_text(marker.name)
    try:
        answers = _ask_living(seconds, _sees, str(marker), LATE_SECONDS)
    finally:
        marker.unlink(missing_ok=True)
    blind = [answer.node for answer in answers if answer.trouble is None and not answer.said]
    if blind:
        raise UserError(
            f"store: {root} lies on {socket.gethostname()} alone: not seen by {', '.join(blind)}. On several nodes the "
            "store must be a path that all of them share, or an object store, s3:// or gs:// (--store)"
        )
    _refuse_silent(answers)


def refuse_other_code(seconds: float = ANSWER_SECONDS) -> None:
    """Raises UserError, naming the nodes, where robustsweep is missing on one or has another code than here.

    The ids of trials follow from the code: two versions in one sweep would train one configuration under two ids.
    """
    ours = code_version()
    answers = _ask_living(seconds, code_version)
    _refuse_silent(answers)
    strange = [f"{answer.node} has {answer.said}" for answer in answers if answer.said != ours]
    if strange:
        raise UserError(
            f"robustsweep is not the same on every node: {ours} here, {'; '.join(strange)}. Install the same on all, "
            "or use `robustsweep submit`, which takes its code along"
        )


def other_nodes() -> list[tuple[str, str]]:
    """Id and name of each node that is alive, but for this one."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        (node["NodeID"], f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})")
        for node in nodes
        if node["Alive"] and node["NodeID"] != here
    ]


def _ask_living(seconds: float, question: Callable[..., Any], *arguments: Any) -> list[Answer]:
    """The answer of each other node. Ray counts a node that died as alive for some seconds: who may be gone is asked
    again until it answers, leaves the cluster, or the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answers = _ask(other_nodes(), max(1.0, deadline - time.monotonic()), question, *arguments)
        if time.monotonic() > deadline or not any(answer.may_be_gone for answer in answers):
            return answers
        time.sleep(1.0)


def _ask(nodes: list[tuple[str, str]], seconds: float, question: Callable[..., Any], *arguments: Any) -> list[Answer]:
    """The answer of each node; asked of all at once, with no share of their CPUs, so that busy nodes answer too."""
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    references = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*arguments)
        for node, _ in nodes
    ]
    if not references:
        return []
    answered, _ = ray.wait(references, num_returns=len(references), timeout=seconds)
    answers = []
    for (_, name), reference in zip(nodes, references, strict=True):
        if reference not in answered:
            ray.cancel(reference, force=True)
            answers.append(Answer(name, None, f"no answer in {seconds:g} s"))
            continue
        try:
            answers.append(Answer(name, ray.get(reference)))
        except RayError as error:
            answers.append(Answer(name, None, _reason(error), isinstance(error, GONE)))
    return answers


def _sees(marker: str, late: float) -> bool:
    """Whether this node has the marker. A network file system may show it a moment later."""
    deadline = time.monotonic() + late
    while True:
        try:
            return Path(marker).read_text() == Path(marker).name
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)


def _refuse_silent(answers: list[Answer]) -> None:
    silent = [f"{answer.node}: {answer.trouble}" for answer in answers if answer.trouble is not None]
    if silent:
        raise UserError(
            "robustsweep does not run on every node of the cluster:\n  " + "\n  ".join(silent) + "\nInstall it there, "
            "or use `robustsweep submit`, which takes its code along; a node that is gone must leave the cluster first"
        )


def _reason(error: RayError) -> str:
    """The line of an error that says most: what was missing, else the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "ModuleNotFoundError" in line or "ImportError" in line]
    return (telling or lines or [type(error).__name__])[-1]
