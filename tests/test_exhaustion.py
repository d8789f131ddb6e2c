"""Claims about a space that has no more configurations than were tried: an extension says so."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from inline import SYNTHETIC, Inline
from rich.console import Console

import orchestrator
from orchestrator.exhaustion import exhausted_searches

SMALL: dict[str, Any] = {
    **SYNTHETIC,
    "training": {"epochs": 1, "batch_size": 32, "lr": 0.1, "weight_decay": {"choice": [0.0, 5e-4]}},
    "search": {"sampler": "random", "trials": 9},
    "evaluation": {**SYNTHETIC["evaluation"], "test": {"finalists": 0}},
}


def said_by_a_run(store: Path, trials: int) -> str:
    """Nothing is left to be done, so that no Ray is started."""
    console = Console(file=io.StringIO(), width=200)
    orchestrator.run(SMALL, store=store, trials=trials, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Inline:
    return Inline(tmp_path_factory.mktemp("store") / "tiny", SMALL).run()


def test_an_extension_of_a_search_that_is_over_says_which_and_why(finished: Inline) -> None:
    said = said_by_a_run(finished.root.parent, trials=12)
    for cell in ("defense=standard", "defense=pgd_at"):
        assert f"the search in {cell} is over at 2 of 12 trials: its last 20 suggestions were" in said
    assert "nothing to do" in said


def test_a_search_that_has_all_its_trials_is_not_called_over(finished: Inline) -> None:
    assert said_by_a_run(finished.root.parent, trials=2).strip() == "nothing to do: every trial is on record"
    fresh = Inline(finished.root.parent / "other", {**SMALL, "search": {"sampler": "random", "trials": 1}})
    assert exhausted_searches(fresh.sweep) == []
