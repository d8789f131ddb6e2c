"""Where a relative store lies: in the working directory, unless that is a copy that Ray makes and deletes."""

from __future__ import annotations

from pathlib import Path

COPIES = "working_dir_files"  # the folder of a node's temporary directory in which Ray unpacks working directories


def lasting_base(working_directory: Path | None = None) -> Path:
    """The working directory, or the home directory where that is Ray's own copy of one."""
    here = working_directory or Path.cwd()
    return Path.home() if COPIES in here.parts and "runtime_resources" in here.parts else here
