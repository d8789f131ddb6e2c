"""The words of `robustsweep evaluate`, read: a run whose models are attacked again, or a model in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from orchestrator.errors import SpecError, UserError
from orchestrator.radii import read_eps, read_threat
from orchestrator.storage.checkpoints import SUFFIX
from orchestrator.yaml_source import Source


@dataclass(frozen=True)
class Call:
    """As it was written."""

    what: str
    attacks: list[str]
    trials: list[str]
    split: str | None
    eps: list[str]
    name: str | None
    examples: int | None
    seed: int | None
    network: str | None
    dataset: str | None
    threat: str | None

    def make(self, say: Callable[[str], None], as_json: bool, console: Console) -> bool:
        """Measure and print; -> whether nothing could be measured. Raises UserError."""
        attacks = [_block(text, "--attack") for text in self.attacks]
        if self.what.endswith(SUFFIX) or Path(self.what).is_file():
            self._model(attacks, as_json, console)
            return False
        return self._run(attacks, say, as_json, console)

    def _run(self, attacks: list[Any], say: Callable[[str], None], as_json: bool, console: Console) -> bool:
        from orchestrator.analysis import load
        from orchestrator.evaluation_table import render_run

        self._refuse("a run knows its own", "network", "dataset", "threat")
        found = load(self.what).evaluate(
            attacks, trials=self.trials, split=self.split, eps=self.eps, examples=self.examples, seed=self.seed,
            name=self.name, say=say,
        )  # fmt: skip
        if as_json:
            typer.echo(found.to_json(orient="records", indent=2))
        else:
            console.print(render_run(found))
        failed = found.loc[found["error"].notna(), "trial_id"].nunique()
        if failed:
            say(f"{failed} of {found['trial_id'].nunique()} models could not be attacked")
        return bool(failed == found["trial_id"].nunique())

    def _model(self, attacks: list[Any], as_json: bool, console: Console) -> None:
        from orchestrator.any_checkpoint import evaluate_checkpoint
        from orchestrator.evaluation_table import as_json as figures
        from orchestrator.evaluation_table import render_one

        self._refuse("a model in a file has none, and is recorded nowhere", "trials", "name")
        if self.network is None or self.dataset is None or self.threat is None:
            missing = [key for key in ("network", "dataset", "threat") if getattr(self, key) is None]
            raise UserError(f"--{missing[0]}: is required for a model in a file, such as --threat linf:8/255")
        found = evaluate_checkpoint(
            self.what, _block(self.network, "--network"), _block(self.dataset, "--dataset"), read_threat(self.threat),
            attacks, split=self.split or "test", eps=[read_eps(text) for text in self.eps], examples=self.examples,
            seed=self.seed or 0,
        )  # fmt: skip
        if as_json:
            typer.echo(json.dumps(figures(found), indent=2))
        else:
            console.print(render_one(found))

    def _refuse(self, why: str, *keys: str) -> None:
        for key in keys:
            if getattr(self, key):
                raise UserError(f"--{key.removesuffix('s')}: {why}")


def _block(text: str, where: str) -> Any:
    """A name, or a mapping in YAML. Raises UserError."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return Source(f"{text}\n", name=where).tree
    except SpecError as error:
        raise UserError(str(error)) from None
