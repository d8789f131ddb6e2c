"""Claims about going to a cluster as a job: joined, resumed, followed, refused; with a job server in this process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inline import SYNTHETIC

import orchestrator.cluster.following as following
from orchestrator.cluster.submission import submit
from orchestrator.errors import UserError

ADDRESS = "http://head:8265"


@dataclass
class FakeJobs:
    """A job server whose jobs end as `ends` says (status and exit code), after logs that may break off."""

    ends: tuple[str, int | None] = ("SUCCEEDED", 0)
    log: tuple[str, ...] = ("one\n", "two\n")
    breaks: int = 0
    jobs: dict[str, Any] = field(default_factory=dict)
    order: list[dict[str, Any]] = field(default_factory=list)
    interrupts: bool = False

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> str:
        assert Path(runtime_env["working_dir"]).is_file()
        self.order.append({"entrypoint": entrypoint, "id": submission_id, "env": runtime_env, "metadata": metadata})
        self.add(submission_id, "RUNNING", metadata)
        return submission_id

    def add(self, job: str, status: str, metadata: dict[str, str] | None = None) -> None:
        self.jobs[job] = SimpleNamespace(
            submission_id=job, status=status, metadata=metadata or {}, driver_exit_code=None, message="it is said"
        )

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def get_job_info(self, job: str) -> Any:
        return self.jobs[job]

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        if self.interrupts:
            raise KeyboardInterrupt
        for text in self.log:
            if self.breaks and text != self.log[0]:
                self.breaks -= 1
                raise OSError("the connection broke")
            yield text
        self.jobs[job].status, self.jobs[job].driver_exit_code = self.ends


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tiny sweep, as the working directory; no waiting between looks at a job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(following.time, "sleep", lambda seconds: None)
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(SYNTHETIC))
    return path


def submitted(jobs: FakeJobs, spec: Path, **settings: Any) -> tuple[int, str]:
    """The exit code and what was said."""
    said: list[str] = []
    code = submit(spec, ADDRESS, write=said.append, server=lambda address: jobs, **settings)
    return code, "\n".join(said)


def test_a_job_runs_the_sweep_with_the_settings_of_the_call(project: Path) -> None:
    jobs = FakeJobs()
    code, said = submitted(jobs, project, store="/shared", trials=9, overrides=["training.epochs=2"], time_budget="8h")
    assert code == 0
    assert jobs.order[0]["entrypoint"] == (
        "python orchestrator/cluster/arrival.py run tiny.yaml --address auto --store /shared --trials 9 "
        "--set training.epochs=2 --time-budget 8h"
    )
    assert [line for line in said.splitlines() if line in ("one", "two")] == ["one", "two"]
    assert "/shared/tiny" in said


def test_the_id_follows_from_name_settings_and_store(project: Path) -> None:
    ids = []
    for settings in ({}, {}, {"trials": 9}, {"store": "/shared"}, {"overrides": ["training.epochs=2"]}):
        jobs = FakeJobs()
        submitted(jobs, project, **settings)
        ids.append(jobs.order[0]["id"])
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert all(re.fullmatch("tiny-[0-9a-f]{10}", job) for job in ids)


def test_a_number_written_another_way_is_the_same_job(project: Path) -> None:
    one, other = FakeJobs(), FakeJobs()
    submitted(one, project)
    project.write_text(json.dumps({**SYNTHETIC, "threat": {"norm": "linf", "eps": "1/20"}}))
    submitted(other, project)
    assert one.order[0]["id"] == other.order[0]["id"]


def test_a_second_submit_joins_a_running_job(project: Path) -> None:
    jobs = FakeJobs()
    submitted(jobs, project, wait=False)
    code, said = submitted(jobs, project)
    assert (code, len(jobs.order)) == (0, 1)
    assert "joining" in said
    assert "two" in said


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_after_its_end_the_same_submit_is_the_next_attempt(project: Path, end: str) -> None:
    jobs = FakeJobs(ends=(end, 1))
    for _ in range(3):
        submitted(jobs, project)
    first, second, third = (sent["id"] for sent in jobs.order)
    assert (second, third) == (f"{first}-2", f"{first}-3")


def test_another_form_of_a_sweep_that_runs_is_refused_until_it_ends(project: Path) -> None:
    jobs = FakeJobs()
    submitted(jobs, project, wait=False)
    with pytest.raises(UserError, match="running another form of this sweep"):
        submitted(jobs, project, trials=9)
    assert submitted(jobs, project, trials=9, store="/elsewhere", wait=False)[0] == 0
    jobs.jobs[jobs.order[0]["id"]].status = "STOPPED"
    assert submitted(jobs, project, trials=9)[0] == 0


def test_two_submits_at_once_give_one_job(project: Path) -> None:
    class Raced(FakeJobs):
        def submit_job(self, **settings: Any) -> str:
            super().submit_job(**settings)
            raise RuntimeError("Request failed with status code 500: already exists")

    code, said = submitted(Raced(), project)
    assert code == 0
    assert "joining" in said


@pytest.mark.parametrize(
    ("status", "driver", "code", "words"),
    [
        ("SUCCEEDED", 0, 0, "is done"),
        ("FAILED", 1, 1, "the same command goes on"),
        ("FAILED", 2, 2, "put right"),
        ("FAILED", 130, 130, "goes on"),
        ("FAILED", -9, 1, "signal 9"),
        ("FAILED", 137, 1, "signal 9"),
        ("FAILED", 3, 1, "exit code was 3"),
        ("FAILED", 127, 1, "no command `python`"),
        ("FAILED", None, 1, "it is said"),
        ("STOPPED", None, 130, "stopped"),
    ],
)
def test_the_exit_code_is_that_of_the_run(
    project: Path, status: str, driver: int | None, code: int, words: str
) -> None:
    found, said = submitted(FakeJobs(ends=(status, driver)), project)
    assert found == code
    assert words in said


def test_a_log_whose_connection_breaks_is_told_once(project: Path) -> None:
    code, said = submitted(FakeJobs(log=("one\n", "two\n", "three\n"), breaks=3), project)
    assert code == 0
    assert [line for line in said.splitlines() if line in ("one", "two", "three")] == ["one", "two", "three"]


class Clock:
    """Time that passes when someone waits, and when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(project: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(following, "time", clock)
    return clock


@dataclass
class Shaky(FakeJobs):
    """After an hour of log the connection breaks, as Ray says it; then the log is silent for `cut` attempts.

    `gone` is whether the server does not answer then either, `silent` whether a cut connection is not noticed.
    """

    clock: Clock = field(default_factory=Clock)
    cut: int = 0
    gone: bool = False
    silent: bool = False
    attempts: int = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.attempts += 1
        if self.attempts == 1:
            yield "one\n"
            self.clock.now += 3600
        if self.silent and self.attempts == 1:
            await asyncio.Event().wait()
        if self.attempts <= 1 + self.cut:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        async for text in super().tail_job_logs(job):
            yield text

    def get_job_info(self, job: str) -> Any:
        if self.gone and self.attempts <= 1 + self.cut:
            raise ConnectionError("refused")
        return super().get_job_info(job)


def test_a_connection_lost_after_hours_is_made_again(project: Path, clock: Clock) -> None:
    code, said = submitted(Shaky(clock=clock, gone=True), project)
    assert code == 0
    assert [line for line in said.splitlines() if line in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(("seconds", "code"), [(100, 0), (200, 1)])
def test_a_cluster_is_gone_after_two_minutes_without_an_answer(
    project: Path, clock: Clock, seconds: int, code: int
) -> None:
    found, said = submitted(Shaky(clock=clock, cut=seconds, gone=True), project)
    assert found == code
    assert ("does not answer any more" in said) == bool(code)


def test_a_server_that_answers_is_not_gone_though_the_log_cannot_be_had(project: Path, clock: Clock) -> None:
    code, said = submitted(Shaky(clock=clock, cut=500), project)
    assert code == 0
    assert "two" in said.split()


def test_a_job_that_ended_with_its_node_is_done_though_its_log_is_lost(project: Path, clock: Clock) -> None:
    class Lost(Shaky):
        def get_job_info(self, job: str) -> Any:
            self.jobs[job].status = "FAILED"
            return super().get_job_info(job)

    jobs = Lost(clock=clock, cut=10_000)
    code, said = submitted(jobs, project)
    assert code == 1
    assert "it is said" in said
    assert jobs.attempts < 10


def test_a_connection_that_is_cut_without_a_word_is_made_again(
    project: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "QUIET", 0.01)
    code, said = submitted(Shaky(clock=clock, silent=True), project)
    assert code == 0
    assert "two" in said.split()


def test_control_c_detaches_and_says_how_to_follow_and_to_stop(project: Path) -> None:
    jobs = FakeJobs(interrupts=True)
    code, said = submitted(jobs, project)
    job = jobs.order[0]["id"]
    assert code == 130
    assert jobs.jobs[job].status == "RUNNING"
    assert f"ray job logs --address {ADDRESS} --follow {job}" in said
    assert f"ray job stop --address {ADDRESS} {job}" in said


def test_without_waiting_nothing_is_followed(project: Path) -> None:
    code, said = submitted(FakeJobs(ends=("FAILED", 1)), project, wait=False)
    assert code == 0
    assert "one" not in said.split()
    assert "ray job stop" in said


@pytest.mark.parametrize(("store", "place"), [("s3://b/x", "is s3://b/x/tiny"), ("r", "~/r/tiny on the head node")])
def test_where_the_results_will_lie_is_said(project: Path, store: str, place: str) -> None:
    assert place in submitted(FakeJobs(), project, store=store)[1]


def test_a_wrong_spec_or_call_is_refused_before_the_cluster_is_asked(project: Path, tmp_path: Path) -> None:
    def server(address: str) -> FakeJobs:
        raise AssertionError("asked")

    env = tmp_path / "env.yaml"
    for settings in ({"overrides": ["training.epoch=3"]}, {"time_budget": "soon"}, {"runtime_env": env}):
        with pytest.raises(UserError):
            submit(project, ADDRESS, server=server, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["working_dir: elsewhere", "[1, 2]", "a: [", "env_vars: {KEY: hidden-value"])
def test_a_wrong_runtime_env_is_refused_without_showing_its_values(project: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "env.yaml").write_text(text)
    with pytest.raises(UserError, match="--runtime-env") as raised:
        submitted(FakeJobs(), project, runtime_env=tmp_path / "env.yaml")
    assert "hidden-value" not in str(raised.value)


def test_secrets_of_a_runtime_env_travel_and_are_not_said(project: Path, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text("env_vars: {AWS_SECRET_ACCESS_KEY: hidden-value}")
    jobs = FakeJobs()
    _, said = submitted(jobs, project, runtime_env=tmp_path / "env.yaml")
    assert jobs.order[0]["env"]["env_vars"] == {"AWS_SECRET_ACCESS_KEY": "hidden-value"}
    assert "hidden-value" not in said + jobs.order[0]["entrypoint"] + str(jobs.order[0]["metadata"])
