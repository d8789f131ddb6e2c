"""Send a sweep to a Ray cluster as a job, or join the job that runs it already, and follow it to its end."""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from orchestrator.api import seconds
from orchestrator.cluster.following import INTERRUPTED, OK, WRONG, ClusterGone, exit_code, follow, why
from orchestrator.cluster.jobs import Jobs, connect
from orchestrator.cluster.parcel import pack
from orchestrator.errors import UserError
from orchestrator.plugins.admission import admit, admitted
from orchestrator.plugins.luggage import luggage
from orchestrator.spec import Spec, load_spec

ARRIVAL = "orchestrator/cluster/arrival.py"
RUN = "robustsweep_run"  # the job's metadata: which run directory it works on
ACTIVE = ("PENDING", "RUNNING")


@dataclass(frozen=True)
class Order:
    """A sweep as it is to run on a cluster: `arguments` of `robustsweep run`, `place` of its run directory there."""

    arguments: tuple[str, ...]
    place: str
    submission_id: str

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", ARRIVAL, "run", *self.arguments])


def submit(
    spec: Path,
    address: str,
    *,
    store: str | None = None,
    trials: int | None = None,
    overrides: Sequence[str] = (),
    time_budget: str | None = None,
    wait: bool = True,
    working_dir: Path | None = None,
    runtime_env: Path | None = None,
    plugins: Sequence[str] = (),
    write: Callable[[str], None] = print,
    server: Callable[[str], Jobs] = connect,
) -> int:
    """The exit code of a sweep run as a job on the cluster whose dashboard is at `address`; 0 at once unless `wait`.

    `working_dir`, by default the current one, travels with our code; `runtime_env` is a YAML file for Ray, `plugins`
    are as in run, and their source travels too. The same call joins the job while it runs, and later starts another
    that goes on from the store. Raises UserError where the spec, the call or the cluster is not right, before anything
    is sent.
    """
    directory = (working_dir or Path.cwd()).resolve()
    named = [plugin.module for plugin in admit(plugins)]
    checked = load_spec(spec, [*overrides, *([f"search.trials={trials}"] if trials is not None else [])])
    if time_budget is not None:
        seconds(time_budget)
    environment = _environment(runtime_env)
    parcel = pack(directory, spec, _stays(checked, store, directory), luggage().modules)
    order = ordered(checked, spec.resolve().relative_to(directory), store, trials, overrides, time_budget, named)
    jobs = server(address)
    job, is_new = _attempt(jobs, order)
    if is_new:
        write(f"sending {len(parcel.files)} files, {parcel.size / 2**20:.1f} MiB before compression")
        with tempfile.TemporaryDirectory(prefix="robustsweep-") as scratch:
            parcel.write(Path(scratch) / "job.zip")
            env = {**environment, "working_dir": str(Path(scratch) / "job.zip")}
            job, is_new = _send(jobs, order, job, env)
    write(f"job {job}: {'submitted' if is_new else 'runs already, joining it'}; {_said_place(order.place)}")
    again = f"  ray job logs --address {address} --follow {job}\n  ray job stop --address {address} {job}"
    if not wait:
        write(f"to follow it, give the same command without --no-wait, or, and to stop it:\n{again}")
        return OK
    return _followed(jobs, job, order, again, write)


def ordered(
    spec: Spec,
    path: Path,
    store: str | None,
    trials: int | None,
    overrides: Sequence[str],
    time_budget: str | None,
    plugins: Sequence[str] = (),
) -> Order:
    """The order for a spec at `path` of the working directory. Its id follows from name, store and content, that of
    the plugins with it."""
    options = [("--store", store), ("--trials", trials), *(("--set", text) for text in overrides)]
    options += [("--time-budget", time_budget), *(("--plugin", module) for module in plugins)]
    chosen = [word for name, value in options if value is not None for word in (name, str(value))]
    base = spec.store if store is None else store
    place = f"{base.rstrip('/')}/{spec.name}"
    code = "".join(f"\0{plugin.module}={plugin.source}" for plugin in admitted())
    content = hashlib.sha256(f"{place}\0{spec.to_yaml()}{code}".encode()).hexdigest()[:10]
    return Order((path.as_posix(), "--address", "auto", *chosen), place, f"{spec.name}-{content}")


def _attempt(jobs: Jobs, order: Order) -> tuple[str, bool]:
    """The job that runs this order now, or the id of the next attempt at it; and whether it is new."""
    attempts = {}
    for found in jobs.list_jobs():
        job = found.submission_id or ""
        is_active = str(getattr(found.status, "value", found.status)) in ACTIVE
        base, _, number = job.rpartition("-")
        if job == order.submission_id or (base == order.submission_id and number.isdigit()):
            attempts[1 if job == order.submission_id else int(number)] = (job, is_active)
        elif is_active and (found.metadata or {}).get(RUN) == order.place:
            raise UserError(
                f"job {job} is running another form of this sweep into {order.place} (other settings, trials or "
                "overrides); wait for it, stop it with `ray job stop`, or choose another name or --store"
            )
    for _, (job, is_active) in sorted(attempts.items(), reverse=True):
        if is_active:
            return job, False
    return (f"{order.submission_id}-{max(attempts) + 1}" if attempts else order.submission_id), True


def _send(jobs: Jobs, order: Order, job: str, environment: dict[str, Any]) -> tuple[str, bool]:
    """Submit; where another submit of the same was a moment earlier, join that one."""
    try:
        return jobs.submit_job(
            entrypoint=order.entrypoint, submission_id=job, runtime_env=environment, metadata={RUN: order.place}
        ), True
    except (RuntimeError, ValueError) as error:
        found, is_new = _attempt(jobs, order)
        if is_new:
            raise UserError(f"the cluster did not take the job: {error}") from None
        return found, False


def _followed(jobs: Jobs, job: str, order: Order, again: str, write: Callable[[str], None]) -> int:
    try:
        details = follow(jobs, job, lambda text: write(text.rstrip("\n")))
    except KeyboardInterrupt:
        write(f"no longer following; the job goes on. To follow it, give the same command or, and to stop it:\n{again}")
        return INTERRUPTED
    except ClusterGone as error:
        write(
            f"the cluster does not answer any more ({error}). Jobs end with their cluster; what was finished is kept "
            "in the store, and the same command goes on from it"
        )
        return 1
    code = exit_code(details)
    if code == OK:
        write(f"job {job} is done; {_said_place(order.place)}")
    elif code == WRONG:
        write(f"job {job} did not start: its message above says what to put right")
    else:
        ended = "was stopped" if code == INTERRUPTED else f"failed: {why(details)}"
        write(f"job {job} {ended}. What was finished is kept; the same command goes on from it")
    return code


def _said_place(place: str) -> str:
    if "://" in place:
        return f"its run directory is {place}"
    if place.startswith(("/", "~")):
        return f"its run directory is {place} on the head node"
    return f"its run directory is ~/{place} on the head node"


def _stays(spec: Spec, store: str | None, directory: Path) -> list[Path]:
    """The store and the datasets' folders: they do not travel."""
    base = spec.store if store is None else store
    roots = [cell.dataset_block().get("root") for cell in spec.cells()]
    return [directory / Path(place).expanduser() for place in {base, *roots} if place and "://" not in place]


def _environment(path: Path | None) -> dict[str, Any]:
    """Ray's runtime environment from a YAML file; its values, which may be secret, are not said in any message."""
    if path is None:
        return {}
    try:
        found = YAML(typ="safe").load(path.read_text())
    except OSError as error:
        raise UserError(f"--runtime-env {path}: cannot be read: {error.strerror}") from None
    except (YAMLError, UnicodeDecodeError):
        raise UserError(f"--runtime-env {path}: is not YAML") from None
    if not isinstance(found, Mapping):
        raise UserError(f"--runtime-env {path}: must be a mapping such as {{pip: [...], env_vars: {{...}}}}")
    if "working_dir" in found:
        raise UserError(f"--runtime-env {path}: working_dir is chosen by submit; name the folder with --working-dir")
    return dict(found)
