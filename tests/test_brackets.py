"""Claims about brackets and colons in what a user wrote: shown as written, though they look like markup to rich."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from inline import SYNTHETIC, Inline
from rich.console import Console, RenderableType
from rich.table import Table
from test_cli import call

import orchestrator.api
from orchestrator.analysis import Run, load
from orchestrator.leaderboard_table import render
from orchestrator.listing import _settings
from orchestrator.preview import preview
from orchestrator.progress import Progress
from orchestrator.spec import load_spec

ODD = "[sgd, adam] [/x] [red] :smile: [link=a]b"


def shown(what: RenderableType) -> str:
    """What a console prints that takes markup, as rich's own does."""
    console = Console(file=io.StringIO(), width=300)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_console_that_takes_markup_eats_such_text() -> None:
    table = Table("[sgd, adam] :smile:")
    assert "[sgd, adam]" not in shown(table)
    assert ":smile:" not in shown(table)


def test_check_shows_the_values_of_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    training = {**SYNTHETIC["training"], "optimizer": {"choice": ["sgd", "adam"]}}
    network = {"choice": [{"name": "mlp", "widths": [16]}, {"name": "lenet"}]}
    path.write_text(json.dumps({**SYNTHETIC, "training": training, "network": network}))
    assert call(monkeypatch, "check", path) == 0
    said = capsys.readouterr().out
    assert "[sgd, adam]" in said
    assert "[mlp, lenet]" in said
    assert "[sgd, adam]" in shown(preview(load_spec(path)))


@pytest.mark.parametrize(
    "override", ["matrix.defense=[pcl, pgd_at]", "training.lr=[/x]", "name=[bold]:smile:[/bold]", "name=a\\[b]"]
)
def test_the_command_to_go_on_is_the_one_that_was_given(
    override: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(orchestrator.api, "run", interrupted)
    assert call(monkeypatch, "run", "a.yaml", "--set", override) == 130
    assert f"\n  robustsweep run a.yaml --set '{override}'\n" in capsys.readouterr().out


@dataclass(frozen=True)
class Odd:
    """Its settings, [as they are]."""

    widths: list[int] = field(default_factory=list)
    places: dict[str, list[int]] = field(default_factory=dict)
    word: str = ODD
    name: ClassVar[str] = "odd"


def test_list_shows_types_and_defaults_as_they_are_written() -> None:
    said = shown(_settings("odd", Odd))
    for text in ("list[int]", "dict[str, list[int]]", repr(ODD), "Its settings, [as they are]."):
        assert text in said


class Bracketed(Run):
    """A run whose cells and settings are called as users may call them."""

    def leaderboard(self) -> pd.DataFrame:
        board = super().leaderboard()
        board["param.training.optimizer"] = ODD
        return board.assign(cell=[f"{ODD}{place}" for place in range(len(board))], dataset="[data] :smile:")


def test_the_leaderboard_shows_names_and_settings_as_they_are(tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 32, "lr": {"log_uniform": [0.01, 0.2]}}
    evaluation = {**SYNTHETIC["evaluation"], "test": {"finalists": 0}}
    spec = {**SYNTHETIC, "training": training, "evaluation": evaluation, "search": {"trials": 1}}
    run = load(Inline(tmp_path / "tiny", spec).run().root)
    said = shown(render(Bracketed(run.store)))
    assert f"{ODD}0" in said
    assert f"optimizer={ODD}" in said
    assert "[data] :smile: under linf" in said


def test_progress_shows_lines_and_the_best_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=300, force_terminal=True)
    progress = Progress(console)
    progress.line(ODD)
    progress.stage(ODD, 1, {})
    progress.update({}, ODD)
    console.print(progress._picture())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count(ODD) == 3


def test_errors_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "check", ODD) == 2
    assert ODD in capsys.readouterr().err
