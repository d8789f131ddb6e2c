"""Claims about SIGKILL at any moment, by the campaign of benchmarks/ in small; and that its checks can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

from kills.checking import wrong_with_store  # noqa: E402
from kills.comparing import differences  # noqa: E402
from kills.tables import Tables, read  # noqa: E402
from kills.watching import Watcher  # noqa: E402

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def counts(tmp_path: Path, *options: str) -> dict[str, Any]:
    """What a campaign counted; it must have ended well."""
    target = tmp_path / "counts.json"
    command = [sys.executable, str(BENCHMARKS / "kill_campaign.py"), "--json", str(target), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(target.read_text())["all"]
    return found


@on_linux
def test_a_sweep_that_was_killed_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    small = ["--samplers", "tpe", "--one-by-one", "--trials", "4", "--agent-seconds", "0"]
    found = counts(tmp_path, "--kills", "1", "--victims", "driver", "group", *small)
    assert sum(found["kills"].values()) == 1
    assert found["looks"] > 5
    assert found["compared_rows"] > 100


@on_linux
@pytest.mark.parity
def test_sweeps_whose_drivers_and_workers_are_killed_end_as_the_undisturbed_ones(tmp_path: Path) -> None:
    found = counts(tmp_path, "--kills", "20", "--trials", "8")
    assert sum(found["kills"].values()) == 20
    assert found["looks"] >= 200


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, of one cell so that its trials are few."""
    spec = {**SYNTHETIC, "matrix": {"defense": [{"name": "standard"}]}}
    return Path(Inline(tmp_path_factory.mktemp("kills") / "tiny", spec).run().store.root)


def wrong(root: Path, tables: Tables) -> list[str]:
    return wrong_with_store(root, tables, trials=4, finalists=2)


def test_the_checks_find_nothing_wrong_with_a_finished_run(root: Path) -> None:
    assert wrong(root, read(root)) == []
    assert differences(read(root), read(root)) == []


def flip(table: pd.DataFrame, column: str, place: int = 0) -> pd.DataFrame:
    changed = table.copy()
    where = changed.index[changed[column].notna()][place]
    value = changed.loc[where, column]
    changed.loc[where, column] = (not value) if changed[column].dtype == bool else value + 1
    return changed


DAMAGES: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "a trial twice": ("trials", lambda table: pd.concat([table, table.iloc[:1]])),
    "a trial without a row": ("trials", lambda table: table.iloc[1:]),
    "an example twice": ("examples", lambda table: pd.concat([table, table.iloc[:1]])),
    "an example lost": ("examples", lambda table: table.iloc[1:]),
    "an epoch lost": ("epochs", lambda table: table.iloc[1:]),
    "an evaluation lost": ("attacks", lambda table: table[table["evaluation"] == "rung"]),
    "a suggestion lost": ("asks", lambda table: table.iloc[1:]),
    **{
        f"another {column}": ("trials", lambda table, column=column: flip(table, column))
        for column in ("clean_accuracy", "robust_accuracy", "robust_area", "robust_ci_low", "rung_robust_accuracy", "n")
    },
    "a count of attacks": ("attacks", lambda table: flip(table, "n_fooled")),
    "an interval of attacks": ("attacks", lambda table: flip(table, "ci_high")),
    "a rung of epochs": ("epochs", lambda table: flip(table, "robust_accuracy")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checks_see_each_damage(root: Path, damage: str) -> None:
    table, change = DAMAGES[damage]
    tables = read(root)
    assert wrong(root, {**tables, table: change(tables[table])})


@pytest.mark.parametrize(("table", "column"), [("epochs", "loss"), ("examples", "margin"), ("trials", "robust_area")])
def test_a_figure_that_differs_by_one_bit_is_a_difference(root: Path, table: str, column: str) -> None:
    tables = read(root)
    changed = tables[table].copy()
    where = changed.index[changed[column].notna()][0]
    changed.loc[where, column] += 2e-16 + abs(changed.loc[where, column]) * 2e-16
    assert len(differences({**tables, table: changed}, tables)) == 1


def test_a_watcher_sees_rows_vanish_and_trials_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, watcher = read(root), Watcher(root, seed=0)
    shown = [tables, {**tables, "epochs": tables["epochs"].iloc[1:]}, tables]
    shown += [{**tables, "trials": flip(tables["trials"], "peak_memory_bytes")}]
    monkeypatch.setattr("kills.watching.read", lambda _: shown.pop(0))
    for _ in range(4):
        watcher.look()
    assert watcher.looks == 4
    vanished = {text for text in watcher.wrong if text.startswith("look 2: epochs: a row vanished")}
    changed = {text for text in watcher.wrong if text.startswith("look 4: ") and "changed in peak_memory" in text}
    assert len(vanished) == len(changed) == 1
    assert set(watcher.wrong) == vanished | changed


def test_a_watcher_does_not_pass_over_a_table_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_: Path) -> Tables:
        raise OSError("Parquet magic bytes not found in footer")

    watcher = Watcher(root, seed=0)
    monkeypatch.setattr("kills.watching.read", unreadable)
    watcher.look()
    assert "magic bytes" in watcher.wrong[0]
