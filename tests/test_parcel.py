"""Claims about what travels to a cluster: what a job needs, in a size that is known before it is sent."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import orchestrator.cluster.parcel as parcel
from orchestrator.cluster.arrival import lacking
from orchestrator.cluster.parcel import pack
from orchestrator.errors import UserError
from orchestrator.lasting import lasting_base
from orchestrator.provenance import ROOT, code_version


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (
        *("sweeps/a.yaml", "plugin.py", "weights/net.safetensors"),
        *("results/a/spec.yaml", ".venv/bin/python", ".git/config", ".env", "data/images.bin", "__pycache__/a.pyc"),
        *("mine.egg-info/PKG-INFO", "kept/b.txt"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(directory: Path, *leave: Path) -> set[str]:
    found = pack(directory, directory / "sweeps/a.yaml", leave)
    return {name for name, _ in found.files if not name.startswith(("attacks/", "defenses/", "orchestrator/"))}


def test_sweeps_and_plugins_travel_and_stores_environments_and_data_do_not(project: Path) -> None:
    found = names(project, project / "data", project / "kept")
    assert found == {"sweeps/a.yaml", "plugin.py", "weights/net.safetensors"}


def test_what_git_ignores_stays_but_never_the_spec(project: Path) -> None:
    (project / ".git" / "config").unlink()
    subprocess.run(["git", "init", "-q", project], check=True)
    (project / ".gitignore").write_text("data/\nsweeps/\n*.txt\n")
    assert names(project) == {"sweeps/a.yaml", "plugin.py", "weights/net.safetensors"}


def test_equal_content_makes_an_equal_zip_and_other_content_another(project: Path, tmp_path: Path) -> None:
    def zipped(to: str) -> bytes:
        pack(project, project / "sweeps/a.yaml").write(tmp_path / "data" / to)
        return (tmp_path / "data" / to).read_bytes()

    first = zipped("x.zip")
    (tmp_path / "data" / "x.zip").unlink()
    assert zipped("x.zip") == first
    (tmp_path / "data" / "x.zip").unlink()
    (project / "plugin.py").write_text("other")
    assert zipped("x.zip") != first


def test_the_code_that_travels_runs_and_is_of_the_version_that_sent_it(project: Path, tmp_path: Path) -> None:
    pack(project, project / "sweeps/a.yaml").write(tmp_path / "job.zip")
    there = tmp_path / "there"
    zipfile.ZipFile(tmp_path / "job.zip").extractall(there)
    say = "import orchestrator.provenance as p; print(p.ROOT, p.code_version())"
    call = [sys.executable, "-c", say]
    ended = subprocess.run(call, cwd=there, env={"PYTHONPATH": str(there)}, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(there), code_version()]
    arrived = [sys.executable, parcel_arrival(), "list", "networks"]
    ended = subprocess.run(arrived, cwd=there, env={}, capture_output=True, text=True, check=True)
    assert "resnet" in ended.stdout


def parcel_arrival() -> str:
    from orchestrator.cluster.submission import ARRIVAL

    return ARRIVAL


def test_too_much_is_refused_with_what_is_largest(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "LIMIT", 3 * 2**20)
    (project / "weights/net.safetensors").write_bytes(bytes(5 * 2**20))
    with pytest.raises(UserError, match=r"MiB would travel.*weights \(5 MiB\)"):
        pack(project, project / "sweeps/a.yaml")
    assert pack(project, project / "sweeps/a.yaml", [project / "weights"]).size < 3 * 2**20


def test_a_spec_outside_the_folder_is_refused(project: Path) -> None:
    with pytest.raises(UserError, match="--working-dir"):
        pack(project / "sweeps", project / "plugin.py")


def test_a_folder_with_the_name_of_our_package_is_refused(project: Path) -> None:
    (project / "attacks").mkdir()
    with pytest.raises(UserError, match="rename it"):
        pack(project, project / "sweeps/a.yaml")


def test_a_checkout_of_robustsweep_is_a_working_directory_too() -> None:
    found = dict(pack(ROOT, ROOT / "sweeps/quickstart.yaml").files)
    assert {"sweeps/quickstart.yaml", "orchestrator/cli.py", "tests/test_parcel.py"} <= set(found)


def test_what_a_cluster_lacks_is_named() -> None:
    wanted = ["numpy", "torch>=999", "no-such-package[x]>=1,<2", "pytest<1; extra == 'dev'", "ray[default]>=2.60,<2.61"]
    torch, missing = lacking(wanted)
    assert torch.startswith("torch>=999 (")
    assert missing == "no-such-package[x]>=1,<2 (missing)"


def test_a_relative_store_of_a_job_lies_at_home_and_not_in_rays_copy() -> None:
    copy = Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1")
    assert lasting_base(copy) == lasting_base(copy / "sweeps") == Path.home()
    assert lasting_base(Path("/home/me/project")) == Path("/home/me/project")
