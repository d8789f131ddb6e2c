"""The console script `robustsweep`."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.errors import SweepStopped, UserError
from orchestrator.shadowing import refuse_foreign_packages
from orchestrator.storage.patience import StoreLost

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Large, honest sweeps over adversarial defenses.",
)  # fmt: skip

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A sweep spec (YAML).")]
RunDirectory = Annotated[str, typer.Argument(metavar="RUN", help="A run: <store>/<sweep name>, a directory or URI.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a value of the spec.")
]
OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


@app.command()
def check(spec: SpecFile, overrides: Overrides = None) -> None:
    """Validate a spec; print its dimensions, trials, rungs, and what will run."""
    from orchestrator.preview import preview
    from orchestrator.spec import load_spec

    _console().print(preview(load_spec(spec, overrides or [])))


@app.command()
def run(
    spec: SpecFile,
    store: Annotated[str | None, typer.Option(help="Where run directories are kept; overrides the spec's.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join, or auto.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Search trials per cell; overrides the spec's.")] = None,
    overrides: Overrides = None,
    time_budget: Annotated[str | None, typer.Option(help="Begin no new trial after this long: 90s, 30m, 8h.")] = None,
) -> None:
    """Run a sweep. The same command again resumes it, or extends it when --trials grew."""
    from orchestrator.api import run as run_spec
    from orchestrator.leaderboard_table import render

    console = _console()
    signal.signal(signal.SIGTERM, _interrupt)  # how `ray job stop` and most schedulers end a job
    try:
        found = run_spec(
            spec, store=store, address=address, trials=trials, overrides=overrides or [],
            time_budget=time_budget, console=console,
        )  # fmt: skip
    except KeyboardInterrupt:
        again = shlex.join(["robustsweep", *sys.argv[1:]])
        console.print(f"interrupted: what was finished is kept. To go on:\n  {again}", soft_wrap=True, highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    console.print(render(found))
    failed = int((found.trials()["status"] == "failed").sum())
    if failed:
        said = f"{failed} of {len(found.trials())} trials failed: see the column `error` of {found.root}/trials"
        console.print(said, soft_wrap=True)
    if failed and failed == len(found.trials()):
        raise typer.Exit(FAILED)


@app.command()
def submit(
    spec: SpecFile,
    address: Annotated[str, typer.Option(help="The cluster's dashboard, http://HEAD:8265.")],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Submit, and do not follow the job.")] = False,
    store: Annotated[str | None, typer.Option(help="As in run, on the cluster: a shared path, s3:// or gs://.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Search trials per cell; overrides the spec's.")] = None,
    overrides: Overrides = None,
    time_budget: Annotated[str | None, typer.Option(help="Begin no new trial after this long: 90s, 30m, 8h.")] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="The folder that travels to the cluster; the current one.", file_okay=False)
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option(help="YAML for Ray: pip, env_vars and so on.", dir_okay=False)
    ] = None,
) -> None:
    """Run a sweep as a job on a Ray cluster. The same command again joins it, or goes on where it ended."""
    from orchestrator.cluster.submission import submit as submit_spec

    def write(text: str) -> None:
        typer.echo(text)
        sys.stdout.flush()

    raise typer.Exit(
        submit_spec(
            spec, address, store=store, trials=trials, overrides=overrides or [], time_budget=time_budget,
            wait=not no_wait, working_dir=working_dir, runtime_env=runtime_env, write=write,
        )
    )  # fmt: skip


@app.command()
def status(run_directory: RunDirectory) -> None:
    """How far a sweep is."""
    from orchestrator.analysis import load

    _console().print(load(run_directory).status().to_string())


@app.command()
def leaderboard(
    run_directory: RunDirectory, as_json: Annotated[bool, typer.Option("--json", help="As JSON records.")] = False
) -> None:
    """Which configuration is robust: finalists on the test split, then the rest on validation data."""
    from orchestrator.analysis import load
    from orchestrator.leaderboard_table import render

    found = load(run_directory)
    if as_json:
        typer.echo(found.leaderboard().to_json(orient="records", indent=2))
    else:
        _console().print(render(found))


@app.command()
def compact(run_directory: RunDirectory) -> None:
    """Pack many small Parquet files into few large ones, also while the sweep runs."""
    from orchestrator.analysis import load
    from orchestrator.storage.compaction import compact as pack

    for done in pack(load(run_directory).store, say=_console().print):
        busy = (
            "" if done.after < done.before or done.before < 2 or not done.rows else " (somebody reads it all the time)"
        )
        _console().print(f"{done.table}: {done.before} parts, now {done.after}{busy}")


@app.command()
def doctor(
    run_directory: RunDirectory,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged files aside; the next run does their work again.")
    ] = False,
) -> None:
    """Read every file of a run and say what is wrong with it."""
    from orchestrator.doctor import examine, set_aside
    from orchestrator.storage.driver_lock import driving
    from orchestrator.storage.schemas import TABLES
    from orchestrator.storage.store import Store

    store = Store.at(run_directory)
    if not set(TABLES) & set(store.files.names("")):
        raise UserError(f"{run_directory}: no run here")
    findings = examine(store)
    for finding in findings:
        _console().print(f"{finding.name}: {finding.text}", soft_wrap=True, highlight=False)
    damaged = sum(finding.is_damaged for finding in findings)
    if repair and damaged:
        with driving(store.files):
            set_aside(store, examine(store))  # nobody writes from here on
        _console().print(f"repaired; what was damaged is in {store.root}/.damaged; run the sweep again to redo it")
    elif not findings:
        _console().print("every file is whole")
    elif damaged:
        _console().print(f"{damaged} damaged files; --repair sets them aside")
        raise typer.Exit(FAILED)


@app.command("list")
def list_(
    table: Annotated[str | None, typer.Argument(help="attacks, defenses, networks, datasets or inputs")] = None,
    name: Annotated[str | None, typer.Argument(help="One of them")] = None,
) -> None:
    """What there is, with every hyperparameter."""
    from orchestrator.listing import listing

    _console().print(listing(table, name))


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    try:
        refuse_foreign_packages()
        app()
    except UserError as error:
        _complain(str(error))
        raise SystemExit(WRONG) from None
    except StoreLost as error:
        _complain(f"{error}\nWhat was finished is kept; when the store is back, the same command goes on.")
        raise SystemExit(FAILED) from None
    except SweepStopped as error:
        _complain(f"{error}\nWhat was finished is kept; the same command goes on.")
        raise SystemExit(FAILED) from None


def _complain(text: str) -> None:
    style = "red" if sys.stderr.isatty() else None
    Console(stderr=True).print(text, style=style, soft_wrap=True, highlight=False, markup=False, emoji=False)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _console() -> Console:
    """Standard output; as wide as it takes when it is not a terminal. Brackets and colons are text, not markup."""
    return Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
