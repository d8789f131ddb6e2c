"""Claims about what Tune is told: who runs next, when to wait, when to let go of its workers."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("ray")

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from orchestrator.cluster.desk import MOST_RESTARTS, Desk
from orchestrator.cluster.tuning import NO_EVALUATOR, DeskScheduler, DeskSearcher


@dataclass
class Pool:
    seconds_without_any: float = 0.0


@dataclass
class FakeDesk:
    """A desk with a queue of so many evaluations before it, of which one ends at each look."""

    waiting: int
    pool: Pool = field(default_factory=Pool)
    looks: int = 0

    @property
    def must_wait(self) -> bool:
        return self.waiting > 0

    def poll(self, timeout: float = 0.0) -> None:
        self.looks += 1
        self.waiting -= self.pool.seconds_without_any == 0.0

    def next_trial(self) -> None:
        return None

    @contextmanager
    def keeping_trouble(self) -> Any:
        yield


@dataclass
class FakeTrial:
    name: str
    status: str


@dataclass
class Controller:
    trials: list[FakeTrial]

    def get_trials(self) -> list[FakeTrial]:
        return self.trials


def searcher(desk: FakeDesk, plans: dict[str, Any]) -> DeskSearcher:
    return DeskSearcher(cast("Desk", desk), plans)


def test_with_a_full_queue_and_nothing_in_training_it_waits_for_evaluations() -> None:
    desk = FakeDesk(waiting=3)
    assert searcher(desk, {}).suggest("t") == Searcher.FINISHED  # there was no trial left
    assert (desk.looks, desk.waiting) == (3, 0)


def test_with_a_full_queue_those_in_training_are_heard_first() -> None:
    desk = FakeDesk(waiting=3)
    assert searcher(desk, {"other": None}).suggest("t") is None
    assert desk.looks == 1


def test_where_no_evaluator_finds_a_place_tune_lets_go_of_the_worker_that_may_sit_in_it() -> None:
    desk = FakeDesk(waiting=3, pool=Pool(NO_EVALUATOR + 1))
    assert searcher(desk, {}).suggest("t") == Searcher.FINISHED
    assert desk.waiting == 3


def test_the_newest_trial_takes_the_worker_that_is_free_and_the_others_keep_those_that_are_starting() -> None:
    scheduler = DeskScheduler(cast("Desk", FakeDesk(0)), {})
    trials = [FakeTrial("a", Trial.RUNNING), FakeTrial("b", Trial.PENDING), FakeTrial("c", Trial.PENDING)]
    chosen = cast("FakeTrial", scheduler.choose_trial_to_run(Controller(trials)))
    assert chosen.name == "c"
    assert scheduler.choose_trial_to_run(Controller(trials[:1])) is None


@dataclass
class Records:
    """A sweep that notes how trials ended, and has nothing else to do."""

    ended_as: list[tuple[str, str | None]] = field(default_factory=list)
    records: dict[str, Any] = field(default_factory=dict)
    exhausted: set[str] = field(default_factory=set)
    may_go_on = False

    def unevaluated(self, stage: str) -> list[Any]:
        return []

    def counts(self, stage: str) -> Counter[str]:
        return Counter()

    def next_trial(self) -> None:
        return None

    def retried(self, *_: Any) -> None:
        """It is not asked about."""

    def ended(self, plan: Any, status: str, error: str | None, facts: Any) -> None:
        self.ended_as.append((status, error))


def test_a_trial_whose_idle_worker_was_lost_is_handed_out_again_and_only_at_last_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tune calls a trial ended where the worker that it had kept for it is gone."""
    sweep, plan = Records(), SimpleNamespace(trial_id="t")
    monkeypatch.setattr(Desk, "_say", lambda *_: None)
    monkeypatch.setattr(Desk, "_total", lambda _: 0)
    sweep.records["t"] = None
    silent = SimpleNamespace(stage=lambda *_: None, line=lambda *_: None)
    desk = Desk(cast("Any", sweep), cast("Any", Pool()), {}, cast("Any", silent), cast("Any", None), "search", None)  # type: ignore[arg-type]
    desk.died(cast("Any", plan))
    assert desk.next_trial() is None
    assert desk.is_over
    for _ in range(MOST_RESTARTS - 1):
        desk.ended(cast("Any", plan), None)
        assert not desk.is_over
        assert desk.next_trial() is plan
    assert sweep.ended_as == []
    desk.ended(cast("Any", plan), None)
    assert sweep.ended_as == [("failed", f"its worker was lost more than {MOST_RESTARTS} times")]
