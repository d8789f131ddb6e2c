"""The console script `robustsweep`."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

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
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="A module of your own, by name or file; may be given again."),
]
OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


@app.command()
def check(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="A sweep spec (YAML).")] = None,
    overrides: Overrides = None,
    plugins: Plugins = None,
    probe: Annotated[bool, typer.Option("--probe", help="Time training and attacks here; forecast hours.")] = False,
    probe_seconds: Annotated[float, typer.Option(min=0.1, help="Time that the probe takes for each cell.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Validate a spec; print what will run and what it may cost. Of plugins, test what they promise."""
    from orchestrator.plugins.admission import admit

    if spec is None and not plugins:
        raise UserError("check: needs a SPEC, or --plugin MODULE, or both")
    admit(plugins or [])
    if spec is not None:
        _show_plan(spec, overrides or [], probe_seconds if probe else None, as_json)
    if plugins and not _keep_their_contracts(plugins):
        raise typer.Exit(WRONG)


@app.command()
def run(
    spec: SpecFile,
    store: Annotated[str | None, typer.Option(help="Where run directories are kept; overrides the spec's.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster to join, or auto.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Search trials per cell; overrides the spec's.")] = None,
    overrides: Overrides = None,
    time_budget: Annotated[str | None, typer.Option(help="Begin no new trial after this long: 90s, 30m, 8h.")] = None,
    plugins: Plugins = None,
) -> None:
    """Run a sweep. The same command again resumes it, or extends it when --trials grew."""
    from orchestrator.api import run as run_spec
    from orchestrator.leaderboard_table import render

    console = _console()
    signal.signal(signal.SIGTERM, _interrupt)  # how `ray job stop` and most schedulers end a job
    try:
        found = run_spec(
            spec, store=store, address=address, trials=trials, overrides=overrides or [],
            time_budget=time_budget, plugins=plugins or [], console=console,
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
    plugins: Plugins = None,
) -> None:
    """Run a sweep as a job on a Ray cluster. The same command again joins it, or goes on where it ended."""
    from orchestrator.cluster.submission import submit as submit_spec

    def write(text: str) -> None:
        typer.echo(text)
        sys.stdout.flush()

    raise typer.Exit(
        submit_spec(
            spec, address, store=store, trials=trials, overrides=overrides or [], time_budget=time_budget,
            wait=not no_wait, working_dir=working_dir, runtime_env=runtime_env, plugins=plugins or [], write=write,
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
def evaluate(
    what: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, or a model in a file .safetensors.")],
    attack: Annotated[
        list[str] | None, typer.Option(metavar="A", help="A name, or '{name: pgd, steps: 200}'; may be repeated.")
    ] = None,
    trial: Annotated[list[str] | None, typer.Option(metavar="ID", help="Of a run; the beginning is enough.")] = None,
    split: Annotated[str | None, typer.Option(help="validation, or test.")] = None,
    eps: Annotated[list[str] | None, typer.Option(metavar="E", help="A radius; several give the curve.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called in the tables of a run.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="How many; as many as final or test by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the attacks; each trial's own by default.")] = None,
    network: Annotated[str | None, typer.Option(metavar="N", help="Of a model: a name or a YAML mapping.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="D", help="For a model: a name or a YAML mapping.")] = None,
    threat: Annotated[str | None, typer.Option(metavar="T", help="For a model: NORM:EPS, such as linf:8/255.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    plugins: Plugins = None,
) -> None:
    """Attack stored checkpoints of a run again, or any checkpoint. The same call again measures what is missing."""
    from orchestrator.evaluate_call import Call
    from orchestrator.plugins.admission import admit

    admit(plugins or [])
    call = Call(
        what, attack or [], trial or [], split, eps or [], name, examples, seed, network, dataset, threat,
    )  # fmt: skip
    try:
        all_failed = call.make(lambda text: _console(stderr=True).print(text, soft_wrap=True), as_json, _console())
    except KeyboardInterrupt:
        again = shlex.join(["robustsweep", *sys.argv[1:]])
        said = f"interrupted: what was measured is kept. To go on:\n  {again}"
        _console(stderr=True).print(said, soft_wrap=True, highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    if all_failed:
        raise typer.Exit(FAILED)


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
    plugins: Plugins = None,
) -> None:
    """What there is, with every hyperparameter; installed plugins and those that are named too."""
    from orchestrator.listing import listing
    from orchestrator.plugins.admission import admit
    from orchestrator.plugins.installed import modules

    admit(plugins or [])
    for module in modules():
        try:
            admit([module])
        except UserError as error:  # somebody else's, which nobody asked for
            _complain(str(error))
    _console().print(listing(table, name))


def _show_plan(spec: Path, overrides: list[str], probe_seconds: float | None, as_json: bool) -> None:
    from orchestrator.outlook import outlook
    from orchestrator.preview import as_json as in_json
    from orchestrator.preview import render
    from orchestrator.spec import load_spec

    found = outlook(load_spec(spec, overrides))
    if not as_json:
        _console().print(render(found))
    costs: dict[str, Any] = {}
    timed = None
    if probe_seconds is not None:
        from orchestrator.probe_view import probed

        timed, costs = probed(found, probe_seconds)
    if as_json:
        typer.echo(json.dumps({**in_json(found), **costs}, indent=2, default=str))
    elif timed is not None:
        _console().print(timed)


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


def _keep_their_contracts(plugins: list[str]) -> bool:
    """Print what holds of the classes of plugins and what does not; whether all of it holds."""
    from orchestrator.contracts.table import render
    from orchestrator.contracts.verdicts import of_plugins

    found = of_plugins(plugins)
    _console().print(render(found))
    return not any(verdict.is_broken for verdict in found)


def _complain(text: str) -> None:
    style = "red" if sys.stderr.isatty() else None
    Console(stderr=True).print(text, style=style, soft_wrap=True, highlight=False, markup=False, emoji=False)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _console(stderr: bool = False) -> Console:
    """Standard output; as wide as it takes when it is not a terminal. Brackets and colons are text, not markup."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(width=None if is_terminal else 160, markup=False, emoji=False, stderr=stderr)
