"""Claims about deploy/: every manifest is whole as far as its schema says, and the script that travels alone speaks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import orchestrator.cli

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
CLUSTERS = ["cluster-onpremise.yaml", "cluster-aws.yaml"]


def loaded(name: str) -> dict[str, Any]:
    found = YAML(typ="safe").load((DEPLOY / name).read_text())
    assert isinstance(found, dict)
    return found


def test_every_manifest_is_tested_here() -> None:
    assert {path.name for path in DEPLOY.glob("*.y*ml")} == {*CLUSTERS, "rayjob.yaml"}


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_is_one_that_ray_takes(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(loaded(name)))
    with pytest.raises(Exception, match="surplus"):  # what Ray checks, it does check
        validate_config({**prepare_config(loaded(name)), "surplus": 1})


@pytest.mark.parametrize("name", CLUSTERS)
def test_nodes_join_the_head_at_the_port_it_opens_and_its_dashboard_stays_inside(name: str) -> None:
    cluster = loaded(name)
    head = shlex.split(cluster["head_start_ray_commands"][-1])
    worker = shlex.split(cluster["worker_start_ray_commands"][-1])
    assert {"--head", "--port=6379", "--dashboard-host=127.0.0.1"} <= set(head)
    assert "--address=$RAY_HEAD_IP:6379" in worker


def test_the_node_types_of_the_cloud_cluster_belong_together() -> None:
    cluster = loaded("cluster-aws.yaml")
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert all({"node_config", "resources", "max_workers"} <= set(one) for one in types.values())
    assert cluster["max_workers"] >= sum(one["max_workers"] for one in types.values())


def test_the_local_cluster_wants_as_many_workers_as_it_names() -> None:
    cluster = loaded("cluster-onpremise.yaml")
    assert cluster["min_workers"] == cluster["max_workers"] == len(cluster["provider"]["worker_ips"])


def test_the_ray_job_is_one_that_kuberay_takes() -> None:
    job = loaded("rayjob.yaml")
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode")
    assert {"entrypoint", "shutdownAfterJobFinishes", "rayClusterSpec"} <= set(spec)
    assert isinstance(YAML(typ="safe").load(spec["runtimeEnvYAML"]), dict)
    cluster = spec["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        assert {"name", "image", "resources", "envFrom"} <= set(container)
        assert all(isinstance(value, str) for value in pod["rayStartParams"].values())
    command, *arguments = shlex.split(spec["entrypoint"])
    assert command == "robustsweep"
    assert arguments[0] in {entry.name or entry.callback.__name__ for entry in orchestrator.cli.app.registered_commands}  # type: ignore[union-attr]


def test_the_ray_of_the_manifest_is_one_that_we_work_with() -> None:
    assert loaded("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"].startswith("2.60.")


def on_the_head(directory: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """The script alone in a folder, run by a Python that has robustsweep only where `path` says so."""
    script = directory / "ray_submit.py"
    script.write_text((DEPLOY / "ray_submit.py").read_text())
    flags = [] if path else ["-S"]
    environment = {**os.environ, "PYTHONPATH": path}
    call = [sys.executable, *flags, str(script), *arguments]
    return subprocess.run(call, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)


def test_on_a_head_without_robustsweep_the_script_says_where_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    ended = on_the_head(tmp_path, "a.yaml")
    assert ended.returncode == 2
    assert "robustsweep is not installed" in ended.stderr
    assert "setup_commands" in ended.stderr


def test_a_spec_that_is_not_on_the_head_is_said_with_how_it_gets_there(tmp_path: Path) -> None:
    ended = on_the_head(tmp_path, "missing.yaml")
    assert ended.returncode == 2
    assert "file_mounts" in ended.stderr


def test_without_a_spec_the_script_says_how_it_is_called(tmp_path: Path) -> None:
    ended = on_the_head(tmp_path)
    assert ended.returncode == 2
    assert "ray submit CLUSTER.yaml" in ended.stderr


def test_with_robustsweep_the_script_becomes_its_run_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    there = tmp_path / "there" / "orchestrator"
    there.mkdir(parents=True)
    (there / "__init__.py").touch()
    (there / "__main__.py").write_text("import sys\nprint(*sys.argv[1:])\nraise SystemExit(130)\n")
    ended = on_the_head(tmp_path, "a.yaml", "--trials", "2", path=str(there.parent))
    assert (ended.returncode, ended.stdout) == (130, "run a.yaml --address auto --trials 2\n")
    ended = on_the_head(tmp_path, "a.yaml", "--address=head:6379", path=str(there.parent))
    assert ended.stdout == "run a.yaml --address=head:6379\n"
