"""Ids and provenance: the same trial has the same id, another has another, and nothing secret is written down."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attacks.threat import Threat
from orchestrator import identity, provenance
from orchestrator.identity import attack_id, config_id, method_source, trial_id
from orchestrator.provenance import gather, without_secrets

TRIAL: dict[str, Any] = {
    "dataset_fingerprint": "ab12",
    "network": {"name": "resnet", "depth": 8, "widths": [16, 32]},
    "defense": {"name": "pgd_at", "half_clean": False},
    "training": {"lr": 1e-3, "epochs": 12},
    "threat": Threat("linf", 0.1),
    "seed": 0,
    "source": "cd34",
}


def test_an_id_is_the_same_in_every_process() -> None:
    """The golden number: SHA-256 of canonical JSON, by another road than the code's."""
    settings = (
        '["ab12",{"depth":8,"name":"resnet","widths":[16,32]},{"half_clean":false,"name":"pgd_at"},'
        '{"epochs":12,"lr":0.001},{"eps":0.1,"norm":"linf"},"cd34"]'
    )
    config = subprocess.run(
        [sys.executable, "-c", "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"],
        input=settings,
        capture_output=True,
        text=True,
        check=True,
    ).stdout[:16]
    assert config_id(**{key: value for key, value in TRIAL.items() if key != "seed"}) == config
    assert len(trial_id(**TRIAL)) == 16
    int(trial_id(**TRIAL), 16)


@pytest.mark.parametrize(
    "same",
    [
        {"training": {"epochs": 12, "lr": 0.001}},
        {"training": {"lr": 1e-3, "epochs": 12.0}},
        {"network": {"widths": (16.0, 32), "depth": 8, "name": "resnet"}},
        {"threat": Threat("linf", 1e-1)},
    ],
)
def test_order_and_way_of_writing_do_not_enter(same: dict[str, Any]) -> None:
    assert trial_id(**{**TRIAL, **same}) == trial_id(**TRIAL)


def test_everything_else_enters() -> None:
    others = [
        {},
        {"dataset_fingerprint": "ab13"},
        {"network": {"name": "resnet", "depth": 8, "widths": [32, 16]}},
        {"network": {"name": "resnet", "depth": 8}},
        {"defense": {"name": "pgd_at", "half_clean": True}},
        {"defense": {"name": "pgd_at", "half_clean": None}},
        {"training": {"lr": 0.0010000000000000002, "epochs": 12}},
        {"training": {"lr": "0.001", "epochs": 12}},
        {"threat": None},
        {"threat": Threat("l2", 0.1)},
        {"threat": Threat("linf", 0.2)},
        {"seed": 1},
        {"source": "cd35"},
    ]
    assert len({trial_id(**{**TRIAL, **other}) for other in others}) == len(others)


def test_a_figure_that_is_no_number_has_no_id() -> None:
    with pytest.raises(ValueError, match="JSON"):
        trial_id(**{**TRIAL, "training": {"lr": float("nan")}})


def test_attack_ids_ignore_layout_only() -> None:
    assert attack_id('{"name": "pgd", "steps": 10}') == attack_id('{"steps":1e1,\n"name":"pgd"}')
    assert attack_id('{"name": "pgd", "steps": 10}') != attack_id('{"name": "pgd", "steps": 11}')


FLOOR = {
    "__init__.py": "from floor.method import Method\nfrom .loop import fit as train\nfrom floor.other import Other",
    "method.py": "def run():\n    from floor import train\nclass Method: pass",
    "loop.py": "from .nested.part import X\nfrom . import sibling\ndef fit(): pass",
    "sibling.py": "import torch",
    "other.py": "class Other: pass",
    "nested/__init__.py": "from floor.other import Other",
    "nested/part.py": "import floor.deep\nX = 1",
    "deep.py": "",
}
PLUGIN = {
    "__init__.py": "",
    "defense.py": "import json\nfrom floor.nested.part import X\nfrom plugin import tools\nclass Mine: pass",
    "tools.py": "",
    "unused.py": "",
}


class Sources:
    """Two packages written to disk; `of` gives the hash of a class as a new process would see it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for package, files in (("floor", FLOOR), ("plugin", PLUGIN)):
            for name, text in files.items():
                (root / package / name).parent.mkdir(parents=True, exist_ok=True)
                (root / package / name).write_text(text)

    def of(self, module: str, name: str) -> str:
        self.forget()
        return method_source(getattr(importlib.import_module(module), name))

    def changed_by(self, path: str, module: str, name: str) -> bool:
        before = self.of(module, name)
        text = (self.root / path).read_text()
        (self.root / path).write_text(text + "\nCHANGED = True\n")
        after = self.of(module, name)
        (self.root / path).write_text(text)
        assert self.of(module, name) == before
        return after != before

    def forget(self) -> None:
        for loaded in [m for m in sys.modules if m.partition(".")[0] in ("floor", "plugin")]:
            del sys.modules[loaded]
        importlib.invalidate_caches()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # bytecode of a source changed within a second is stale
    monkeypatch.setattr(identity, "FLOORS", ("floor",))
    made = Sources(tmp_path)
    yield made
    made.forget()


@pytest.mark.parametrize("path", ["method.py", "loop.py", "sibling.py", "nested/part.py", "deep.py"])
def test_the_source_of_a_method_is_all_that_its_imports_reach(sources: Sources, path: str) -> None:
    """Inside a function, through the package's table, relative, by `import a.b`: one step for each way."""
    assert sources.changed_by(f"floor/{path}", "floor.method", "Method")


@pytest.mark.parametrize("path", ["__init__.py", "other.py", "nested/__init__.py"])
def test_other_methods_do_not_enter(sources: Sources, path: str) -> None:
    assert not sources.changed_by(f"floor/{path}", "floor.method", "Method")


@pytest.mark.parametrize(
    ("path", "enters"),
    [
        ("plugin/defense.py", True),
        ("plugin/tools.py", True),
        ("plugin/__init__.py", True),
        ("plugin/unused.py", False),
        ("floor/nested/part.py", True),
        ("floor/other.py", False),
    ],
)
def test_a_plugin_enters_with_its_own_package(sources: Sources, path: str, enters: bool) -> None:
    assert sources.changed_by(path, "plugin.defense", "Mine") is enters


def test_the_order_of_classes_does_not_enter() -> None:
    assert method_source(Threat, Path) == method_source(Path, Threat) != method_source(Threat)


def test_a_class_without_a_file_is_no_trouble() -> None:
    assert len(method_source(int)) == 16


@pytest.mark.parametrize(
    "command",
    [
        ["--address", "http://me:hunter2@head:8265"],
        ["--store", "s3://AKIA:hunter2@bucket/run"],
        ["--set", "store=s3://me:hun@hunter2@bucket"],
        ["--address", "https://head:8265/?token=hunter2&x=1"],
        ["--address", "https://head/path#hunter2"],
        ["--token", "hunter2"],
        ["--api-key=hunter2"],
        ["--set", "resources.password=hunter2"],
        ["--set", '{"secret_key": "hunter2"}'],
        ["--header", "Authorization: Bearer hunter2"],
        ["ghp_hunter2hunter2"],
        ["hf_hunter2hunter2"],
    ],
)
def test_secrets_on_the_command_line_are_starred_out(command: list[str]) -> None:
    told = without_secrets(["run", *command])
    assert "hunter2" not in " ".join(told)
    assert "***" in " ".join(told)
    assert len(told) == 1 + len(command)


def test_an_ordinary_command_line_is_kept_as_it_is() -> None:
    command = ["run", "a.yaml", "--set", "seed=1", "--store", "s3://bucket/runs", "--plugin", "my.keys", "-v"]
    assert without_secrets(command) == command


def test_provenance_says_what_ran_and_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/bin/robustsweep", "run", "a.yaml", "--password", "hunter2"])
    found = gather("name: a\n")
    assert "hunter2" not in json.dumps(found)
    assert "/opt/somewhere" not in json.dumps(found)
    assert found["command"] == ["robustsweep", "run", "a.yaml", "--password", "***"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["code_version"].startswith(found["robustsweep"] + "+")
    assert {"torch", "ray", "optuna", "platform", "cpus", "gpus", "git_commit", "git_dirty", "spec_hash"} <= set(found)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found["at"])).total_seconds() < 60
    assert gather("name: b\n")["spec_hash"] != found["spec_hash"]


def test_code_version_follows_every_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    seen = {provenance.code_version()}
    for name in ("attacks/a.py", "defenses/networks/b.py", "orchestrator/cluster/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
        seen.add(provenance.code_version())
    (tmp_path / "attacks/a.py").rename(tmp_path / "attacks/b.py")
    seen.add(provenance.code_version())
    assert len(seen) == 5


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_our_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "orchestrator").mkdir()
    ours = tmp_path / "orchestrator/provenance.py"
    ours.write_text("")
    (tmp_path / "other").write_text("")
    nothing = {"git_commit": None, "git_dirty": None}
    assert provenance._git() == nothing
    git("init", "-q")
    git("add", "other")
    git("commit", "-qm", "theirs")
    assert provenance._git() == nothing  # installed inside somebody else's repository
    git("add", ".")
    git("commit", "-qm", "ours")
    assert provenance._git() == {"git_commit": git("rev-parse", "HEAD"), "git_dirty": False}
    (tmp_path / "my-sweep.yaml").write_text("")
    assert provenance._git()["git_dirty"] is False  # not code
    ours.write_text("changed = True\n")
    assert provenance._git()["git_dirty"] is True


def test_provenance_never_fails_for_want_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = gather("")
    assert found["git_commit"] is None
    assert found["gpus"] == []
    assert provenance.version("no-such-package") == "unknown"
