"""A sweep on the head node of a cluster: ray submit CLUSTER.yaml deploy/ray_submit.py -- SPEC [options of run].

`ray submit` copies this one file to the head node and runs it there, so it needs nothing but Python to say what is
missing. SPEC is a path on the head node, from the home directory where it is relative (file_mounts puts sweeps there).
"""

from __future__ import annotations

import importlib.util
import os
import sys

WRONG = 2


def main(arguments: list[str]) -> int:
    """The exit code of `robustsweep run SPEC --address auto ...`; 2 where that cannot begin."""
    if not arguments or arguments[0] in ("-h", "--help"):
        return refuse("usage: ray submit CLUSTER.yaml deploy/ray_submit.py -- SPEC [options of `robustsweep run`]")
    spec, *options = arguments
    if not os.path.isfile(os.path.expanduser(spec)):
        return refuse(
            f"{spec}: no such file on the head node (looked from {os.getcwd()}). `ray submit` copies only its script: "
            "put the spec there with file_mounts of the cluster's YAML, or with `ray rsync-up`"
        )
    if importlib.util.find_spec("orchestrator") is None:
        return refuse(
            f"robustsweep is not installed for {sys.executable} on the head node. Install it under setup_commands of "
            "the cluster's YAML, on every node, and bring the cluster up again (`ray up`)"
        )
    chosen = [] if any(word.partition("=")[0] == "--address" for word in options) else ["--address", "auto"]
    command = [sys.executable, "-m", "orchestrator", "run", os.path.expanduser(spec), *chosen, *options]
    os.execv(sys.executable, command)


def refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return WRONG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
