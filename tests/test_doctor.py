"""The doctor: what was cut off halfway is no damage, and a place that is no run is said to be none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from inline import SYNTHETIC

from orchestrator.analysis import load
from orchestrator.cli import doctor
from orchestrator.doctor import examine, set_aside
from orchestrator.errors import UserError
from orchestrator.rundir import PROVENANCE, SPEC, open_run, open_run_directory
from orchestrator.spec import load_spec
from orchestrator.storage import checkpoints
from orchestrator.storage.store import Store

CHECKPOINT = "checkpoints/t/00002"


class Dead(BaseException):
    """The process that was at work is no more."""


def changed(**changes: Any) -> dict[str, Any]:
    return {**SYNTHETIC, **changes}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_run(load_spec(SYNTHETIC), open_run_directory(str(tmp_path / "tiny")))
    for number in (1, 2):
        checkpoints.save(made.files, "t", number, {"a": torch.zeros(2)}, {})
    return made


def findings(store: Store) -> list[tuple[str, bool]]:
    return [(finding.name, finding.is_damaged) for finding in examine(store)]


def test_a_whole_run_has_no_findings(store: Store) -> None:
    assert examine(store) == []


def test_tensors_without_their_commit_are_a_leftover(store: Store) -> None:
    Path(store.root, f"{CHECKPOINT}.json").unlink()
    assert findings(store) == [(f"{CHECKPOINT}.safetensors", False)]
    assert set_aside(store, examine(store)) == []
    assert checkpoints.newest(store.files, "t") == 1


def test_a_commit_without_its_tensors_is_damage(store: Store) -> None:
    Path(store.root, f"{CHECKPOINT}.safetensors").unlink()
    assert findings(store) == [(f"{CHECKPOINT}.json", True)]
    set_aside(store, examine(store))
    assert examine(store) == []


def test_tensors_that_do_not_belong_to_their_commit_are_damage(store: Store) -> None:
    path = Path(store.root, f"{CHECKPOINT}.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert findings(store) == [(f"{CHECKPOINT}.safetensors", True)]


def cut_off(store: Store, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver of this spec is killed between the provenance and the spec."""

    def die(*_: Any) -> None:
        raise Dead

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_text", lambda self, name, text: write(self, name, text) if name != SPEC else die())
        with pytest.raises(Dead):
            open_run(load_spec(spec), store.files)


write = Store.write_text


def test_a_driver_killed_between_provenance_and_spec_leaves_a_spec_that_still_refuses_another_space(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(store, changed(search={"trials": 9, "objectives": {"robust_area": "max"}}), monkeypatch)
    assert findings(store) == [(PROVENANCE, False)]
    assert set_aside(store, examine(store)) == []
    with pytest.raises(UserError, match="another space is on record"):
        open_run(load_spec(changed(threat={"norm": "linf", "eps": 0.1})), store.files)
    open_run(load_spec(SYNTHETIC), store.files)  # as it was
    assert examine(store) == []


def test_a_spec_that_was_spoilt_is_damage(store: Store) -> None:
    path = Path(store.root, SPEC)
    path.write_text(path.read_text().replace("trials: 4", "trials: 5"))
    assert findings(store) == [(SPEC, True)]


@pytest.mark.parametrize("use", [lambda path: doctor(path), load])
def test_what_is_no_run_is_said_to_be_none(tmp_path: Path, use: Any) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="no run here"):
            use(str(path))
    with pytest.raises(UserError, match="there is no home directory for '~nobody-of-that-name/run'"):
        use("~nobody-of-that-name/run")
