"""The first thing a submitted job runs on the cluster: it says in words what is missing there, then is `robustsweep`.

Run as a file, with nothing but Python's own library, since everything else may be what is missing.
"""

import importlib.metadata
import os
import platform
import re
import sys

WRONG = 2


def lacking(requirements: list[str]) -> list[str]:
    """Those of the requirements (without extras of our own) that this Python does not meet, each with what is there."""
    found = []
    for text in requirements:
        wanted, _, marker = text.partition(";")
        match = re.match(r"\s*([\w.-]+)\s*(\[[^\]]*\])?\s*(.*)", wanted)
        if match is None or "extra" in marker:
            continue
        name, _, allowed = match.groups()
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{wanted.strip()} (missing)")
            continue
        if not all(_meets(there, bound) for bound in allowed.strip("() ").split(",") if bound.strip()):
            found.append(f"{wanted.strip()} ({there} is there)")
    return found


def _meets(there: str, bound: str) -> bool:
    match = re.match(r"\s*(>=|<=|==|!=|>|<)\s*([\d.]+)", bound)
    if match is None:
        return True
    have, want = _numbers(there), _numbers(match[2])
    width = max(len(have), len(want))
    a, b = have + [0] * (width - len(have)), want + [0] * (width - len(want))
    return {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, ">": a > b, "<": a < b}[match[1]]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version)[0])]


def main() -> None:
    sys.path[0] = os.getcwd()  # where our packages lie, in place of this file's folder
    if not _meets(platform.python_version(), ">=3.11"):
        _refuse("Python 3.11 or later")
    lacks = lacking(importlib.metadata.requires("robustsweep") or [])
    if lacks:
        _refuse(", ".join(lacks))
    from orchestrator.cli import main as robustsweep

    sys.argv[0] = "robustsweep"
    robustsweep()


def _refuse(what: str) -> None:
    print(
        f"the Python of this cluster ({sys.executable}, {platform.python_version()}, on {platform.node()}) lacks what "
        f"robustsweep needs: {what}. Install it on every node, or let Ray do so with --runtime-env (key pip)",
        file=sys.stderr,
    )
    raise SystemExit(WRONG)


if __name__ == "__main__":
    main()
