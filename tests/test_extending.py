"""docs/extending.md, run as it stands: its files written, its commands given, in a folder of their own."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from plugin_modules import plugins_forgotten

from orchestrator.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {
    name[1]: text for _, text in BLOCKS if (name := re.match(r"# ([\w/]+\.(?:py|yaml))\b", text))
}  # by the path in their first line
COMMANDS = [line for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
SCRIPT = next(text for kind, text in BLOCKS if kind == "python" and text.startswith("import orchestrator"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the page, as the working directory; nothing of them is left in this process."""
    root = tmp_path_factory.mktemp("extending")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    with plugins_forgotten(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


def give(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_page_adds_one_of_each_and_says_every_command() -> None:
    assert set(FILES) == {f"mine/{name}.py" for name in ("__init__", "random_step", "label_smoothing", "mixer")} | {
        "mine/two_moons.py",
        "two_moons.yaml",
    }
    assert [line.split()[2] for line in COMMANDS if line.startswith("$")] == [
        *("list", "check", "check", "run", "leaderboard", "evaluate"),
    ]


@pytest.mark.parity
def test_the_commands_of_the_page_do_what_it_says(
    folder: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check without --plugin is given first: within one process a module that was named stays named."""
    refused = COMMANDS.index("$ robustsweep check two_moons.yaml")
    assert give(COMMANDS[refused].removeprefix("$ "), monkeypatch) == 2
    assert COMMANDS[refused + 1] in capsys.readouterr().err
    for line in [*COMMANDS[:refused], *COMMANDS[refused + 2 :]]:
        code = give(line.removeprefix("$ "), monkeypatch)
        said = capsys.readouterr()
        assert code == 0, said
        if "check" in line:
            assert "0 broken" in said.out
            assert said.out.count("note") == 1 + said.out.count("notes"), said.out  # the one that the page explains
    trials = pd.read_parquet(folder / "results/two_moons/trials")
    assert "failed" not in set(trials["status"])
    assert set(trials["stage"]) == {"search", "finalist"}
    assert set(trials["defense"]) == {"mine.label_smoothing:LabelSmoothing"}
    assert set(trials["network"]) == {"mine.mixer:Mixer"}
    attacks = pd.read_parquet(folder / "results/two_moons/attacks")
    assert set(attacks.loc[attacks["evaluation"] == "again", "attack"]) == {"mine.random_step:RandomStep"}
    found: dict[str, object] = {}
    exec(SCRIPT, found)
    assert found["model"].surface.losses  # type: ignore[attr-defined]
