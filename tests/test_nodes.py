"""Claims about the other nodes of a cluster: what they do not see or have otherwise is said before a sweep starts.

The other node is this one, asked as if it were another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import orchestrator.cluster.nodes as nodes
from orchestrator.errors import UserError


@pytest.fixture
def other(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one node there is counts as another one."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    monkeypatch.setattr(nodes, "other_nodes", lambda: [(here, "node b (10.0.0.2)")])


def test_a_run_directory_that_the_others_see_is_taken_and_keeps_no_marker(other: None, tmp_path: Path) -> None:
    nodes.refuse_unshared(str(tmp_path), is_local=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_that_another_node_does_not_see_is_refused(
    other: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "LATE_SECONDS", 0.0)
    real = nodes._ask

    def elsewhere(found: list[tuple[str, str]], seconds: float, sees: Any, marker: str, late: float) -> Any:
        return real(found, seconds, sees, marker.replace(str(tmp_path), "/nowhere"), late)

    monkeypatch.setattr(nodes, "_ask", elsewhere)
    with pytest.raises(UserError, match=r"not seen by node b \(10\.0\.0\.2\)\. .*s3://"):
        nodes.refuse_unshared(str(tmp_path), is_local=True)
    assert list(tmp_path.iterdir()) == []


def test_an_object_store_is_seen_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "other_nodes", lambda: 1 / 0)
    nodes.refuse_unshared("s3://bucket/run", is_local=False)


def test_the_same_code_everywhere_is_taken(other: None) -> None:
    nodes.refuse_other_code()


def test_other_code_on_a_node_is_refused_with_both_versions(other: None, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = os.getpid()
    monkeypatch.setattr(nodes, "code_version", lambda: "0.1+aa" if os.getpid() == driver else "0.1+bb")
    with pytest.raises(UserError, match=r"0\.1\+aa here, node b \(10\.0\.0\.2\) has 0\.1\+bb"):
        nodes.refuse_other_code()


def test_a_node_without_robustsweep_is_named_with_what_it_lacks(other: None, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = os.getpid()

    def missing() -> str:
        if os.getpid() != driver:
            raise ModuleNotFoundError("No module named 'orchestrator'")
        return "0.1+aa"

    monkeypatch.setattr(nodes, "code_version", missing)
    with pytest.raises(UserError, match=r"node b \(10\.0\.0\.2\): ModuleNotFoundError: No module named 'orchestrator'"):
        nodes.refuse_other_code()


def test_a_node_that_does_not_answer_is_named(local_ray: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nodes, "other_nodes", lambda: [("ab" * 28, "node gone (10.0.0.3)")])
    with pytest.raises(UserError, match=r"node gone \(10\.0\.0\.3\)"):
        nodes.refuse_unshared(str(tmp_path), is_local=True, seconds=3.0)
    assert list(tmp_path.iterdir()) == []
