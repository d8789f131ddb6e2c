"""Claims about the command line: exit codes, and messages that a person can act on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline

from orchestrator import cli
from orchestrator.cli import main
from orchestrator.spec import load_spec
from orchestrator.storage.patience import StoreLost

SWEEPS = Path(__file__).parent.parent / "sweeps"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `robustsweep` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["robustsweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Inline(tmp_path_factory.mktemp("store") / "tiny").run().root


@pytest.mark.parametrize("path", sorted(SWEEPS.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_sweep_is_right_and_asks_a_question(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith("?")
    assert call(monkeypatch, "check", path) == 0
    assert load_spec(path).name in capsys.readouterr().out
    assert load_spec(path).name == path.stem


def test_the_sweep_of_the_readme_is_the_quickstart() -> None:
    readme = (SWEEPS.parent / "README.md").read_text()
    block = next(part.split("```")[0] for part in readme.split("```yaml\n")[1:] if "name: quickstart" in part)
    assert load_spec(block) == load_spec(SWEEPS / "quickstart.yaml")


def test_a_wrong_spec_is_one_message_with_the_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text((SWEEPS / "quickstart.yaml").read_text().replace("name: pgd_at", "name: pgd_att"))
    assert call(monkeypatch, "run", path) == 2
    said = capsys.readouterr().err
    assert "wrong.yaml:9" in said
    assert "pgd_at" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "nowhere.yaml"),
        ("run", SWEEPS / "quickstart.yaml", "--set", "training.epoch=3"),
        ("run", SWEEPS / "quickstart.yaml", "--time-budget", "soon"),
        ("run", SWEEPS / "quickstart.yaml", "--trials", "0"),
        ("run", SWEEPS / "architecture.yaml", "--set", "dataset.root=/nowhere"),
        ("leaderboard", "nowhere"),
        ("status", "nowhere"),
        ("list", "attack"),
        ("list", "attacks", "pdg"),
        ("fly",),
    ],
    ids=lambda arguments: " ".join(str(word).rsplit("/", 1)[-1] for word in arguments),
)
def test_a_wrong_call_is_one_message_and_code_2(
    arguments: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert said
    assert "Traceback" not in said


def test_leaderboard_as_json_has_a_record_for_each_configuration(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "leaderboard", finished, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) == 8
    assert records[0]["rank"] == 1
    assert 0 <= records[0]["test_robust_accuracy"] <= 1


def test_leaderboard_shows_test_and_validation_figures_apart(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "leaderboard", finished) == 0
    said = capsys.readouterr().out
    for words in ("test", "validation", "rung", "doubts", "x2", "synthetic under linf eps 0.05"):
        assert words in said


def test_status_counts_trials(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "status", finished) == 0
    said = capsys.readouterr().out
    assert "search" in said
    assert "finalist" in said


def test_list_shows_every_name_and_every_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.listing import TABLES

    assert call(monkeypatch, "list") == 0
    said = capsys.readouterr().out
    for entries in TABLES.values():
        assert all(name in said for name in entries)
    assert call(monkeypatch, "list", "defenses", "pgd_at") == 0
    said = capsys.readouterr().out
    assert "clean_weight" in said
    assert "1706.06083" in said


def test_a_number_written_another_way_is_the_same_sweep(tmp_path: Path) -> None:
    spec = {
        **SYNTHETIC,
        "threat": {"norm": "linf", "eps": "1/20"},
        "training": {**SYNTHETIC["training"], "epochs": 3.0},
    }
    assert load_spec(spec).search_space_key() == load_spec(SYNTHETIC).search_space_key()


def test_a_foreign_package_that_hides_ours_is_named_and_refused(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "__init__.py").write_text("")
    call = [sys.executable, "-m", "orchestrator", "list"]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert str(tmp_path / "attacks") in ended.stderr.replace("\n", "")
    assert "Traceback" not in ended.stderr
    assert subprocess.run(call, cwd=tmp_path.parent, capture_output=True, check=False).returncode == 0


def test_a_store_that_is_lost_ends_the_command_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose() -> None:
        raise StoreLost("/results/x: could not write asks in 150 s")

    monkeypatch.setattr(cli, "app", lose)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "could not write asks in 150 s" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said


def test_compact_packs_a_run_and_doctor_finds_it_whole(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "tiny"))
    before = pd.read_parquet(root / "epochs").sort_values(["trial_id", "epoch"], ignore_index=True)
    assert call(monkeypatch, "compact", root) == 0
    assert "parts, now 1" in capsys.readouterr().out
    after = pd.read_parquet(root / "epochs").sort_values(["trial_id", "epoch"], ignore_index=True)
    pd.testing.assert_frame_equal(after, before)
    assert len(list((root / "epochs").glob("*.parquet"))) == 2
    assert call(monkeypatch, "doctor", root) == 0
    assert "every file is whole" in capsys.readouterr().out


def test_doctor_names_a_damaged_file_and_sets_it_aside(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "tiny"))
    part = next((root / "attacks").glob("group-*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    assert call(monkeypatch, "doctor", root) == 1
    assert f"attacks/{part.name}: cannot be read" in capsys.readouterr().out
    assert call(monkeypatch, "leaderboard", root) == 0  # reads `trials` alone
    assert call(monkeypatch, "doctor", root, "--repair") == 0
    assert not part.exists()
    assert (root / ".damaged" / "attacks" / part.name).exists()
    assert call(monkeypatch, "doctor", tmp_path) == 2
