"""Where a figure comes from: versions, machine, code and command, without anything secret."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("attacks", "defenses", "orchestrator")
SECRET = "***"
_WORD = r"[\w.-]*(?:token|secret|passw|credential|api[_-]?key|access[_-]?key|authorization)[\w.-]*"


def gather(spec_text: str) -> dict[str, Any]:
    """Everything about this run but its results, as JSON values. Reads no environment variable and never fails."""
    from orchestrator.plugins.record import on_record  # here: it knows where this package lies from this file

    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": code_version(),
        "spec_hash": spec_hash(spec_text),
        "command": [Path(sys.argv[0]).name, *without_secrets(sys.argv[1:])],
        "robustsweep": version("robustsweep"),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "ray", "optuna", "numpy", "pyarrow")},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": _gpus(),
        "plugins": on_record(),
        **_git(),
    }


def code_version() -> str:
    """The version and a hash of the sources of the three packages, e.g. `0.1.0+3fe1c09a77d2`."""
    content = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        content.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{version('robustsweep')}+{content.hexdigest()[:12]}"


def spec_hash(spec_text: str) -> str:
    """16 hex digits of a spec's text."""
    return hashlib.sha256(spec_text.encode()).hexdigest()[:16]


def version(package: str) -> str:
    """The installed version, "unknown" where there is none. Does not import the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments fit to be stored: passwords, tokens and the queries of URLs are starred out."""
    told: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        names_secret = before.startswith("-") and "=" not in before and re.fullmatch(f"-+{_WORD}", before, re.I)
        told.append(SECRET if names_secret else masked(argument))
    return told


def masked(text: str) -> str:
    text = re.sub(r"(\w://)[^/\s]+@", rf"\1{SECRET}@", text)  # user:password@host
    text = re.sub(r"(\w://[^\s?#]*)[?#][^\s\"']*", rf"\1?{SECRET}", text)  # signatures and tokens ride in queries
    text = re.sub(rf"(?i)({_WORD}[\"']?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?[^\s,}}]+", rf"\1{SECRET}", text)
    return re.sub(r"\b(?:gh[opsu]_|github_pat_|hf_|sk-|xox[abp]-|AKIA|glpat-|ey[JK])[\w.-]{8,}", SECRET, text)


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs; asked of the driver, since torch would open a context on one of them."""
    told = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in (told or "").splitlines() if line.strip()]


def _git() -> dict[str, Any]:
    """The commit of the code, and whether the code differs from it; nulls where it does not lie in a checkout."""
    git = ("git", "--no-optional-locks", "-C", str(ROOT))
    if _output(*git, "ls-files", "--error-unmatch", "orchestrator/provenance.py") is None:
        return {"git_commit": None, "git_dirty": None}
    commit, changes = _output(*git, "rev-parse", "HEAD"), _output(*git, "status", "--porcelain", "--", *PACKAGES)
    return {"git_commit": commit and commit.strip(), "git_dirty": None if changes is None else bool(changes.strip())}


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints, None if it is missing, fails or takes more than ten seconds."""
    if (path := shutil.which(program)) is None:
        return None
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout
