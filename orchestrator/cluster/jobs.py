"""The job server of a Ray cluster: what we ask of it, and in words why it does not answer."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from orchestrator.cluster.token_auth import no_entry
from orchestrator.errors import UserError

SECONDS = 15.0  # how long a server may take to say its version
OURS = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers these to the address it is given
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")  # they say each upload and close


class Jobs(Protocol):
    """The part of Ray's job client that we use."""

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> str: ...

    def list_jobs(self) -> list[Any]: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...


def connect(address: str) -> Jobs:
    """The job client for the dashboard at `address`, e.g. http://head:8265.

    Raises UserError where the address is no dashboard's, nothing answers, or the cluster asks for a token.
    """
    url = checked(address)
    _refuse_other_servers(url)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _unset(OURS):
            client = JobSubmissionClient(url)
    except AuthenticationError:
        raise UserError(no_entry(f"--address {address}")) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"--address {address}: the job server does not answer as Ray's does ({error})") from None
    _refuse_other_rays(address, getattr(client, "_server_ray_version", None))
    return client


def checked(address: str) -> str:
    """The address without a slash at its end. Raises UserError where it is not http(s)://HOST:PORT."""
    form = "must be that of the cluster's dashboard, http://HOST:8265 or https://HOST:PORT"
    scheme = re.match(r"(\w+)://", address)
    if scheme is None or scheme[1] not in ("http", "https"):
        hint = "; ray://HOST:10001 is Ray Client's" if scheme and scheme[1] == "ray" else ""
        hint = hint or ("; to run from this machine: robustsweep run --address" if scheme is None else "")
        raise UserError(f"--address {address}: {form}{hint}")
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^/:?#@\s]+):\d+/?", address):
        raise UserError(f"--address {_without_login(address)}: {form}, host and port alone")
    return address.rstrip("/")


def _refuse_other_servers(url: str) -> None:
    """Ask without a token: Ray's client would wait minutes, and not say what it met."""
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=SECONDS) as answer:
            said = json.loads(answer.read(10_000))
        if "ray_version" not in said:
            raise ValueError("no ray_version")
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise UserError(_no_dashboard(url, f"it says {error.code} to /api/version")) from None
    except OSError as error:
        raise UserError(f"--address {url}: nothing answers there ({getattr(error, 'reason', error)})") from None
    except (ValueError, TypeError):
        raise UserError(_no_dashboard(url, "it does not say Ray's version")) from None
    except http.client.HTTPException:
        raise UserError(_no_dashboard(url, "it does not speak HTTP")) from None


def _no_dashboard(url: str, why: str) -> str:
    return (
        f"--address {url}: something answers there, but it is no Ray dashboard ({why}). The dashboard's port is 8265 "
        "unless `ray start --head --dashboard-port` said otherwise; the cluster's own port, 6379, is another"
    )


def _refuse_other_rays(address: str, there: str | None) -> None:
    import ray

    if there is not None and there.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise UserError(
            f"--address {address}: the cluster runs Ray {there}, this robustsweep is made for "
            f"{'.'.join(ray.__version__.split('.')[:2])}: start the cluster with that"
        )


def _without_login(address: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", address)


@contextmanager
def _unset(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
