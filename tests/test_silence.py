"""Claims about workers of which nothing is heard, and nodes that are gone: who is to blame, and who is not."""

from __future__ import annotations

import pytest
from still_time import Time

pytest.importorskip("ray")

from orchestrator.cluster.node_watch import NodeWatch
from orchestrator.cluster.silence import Silence


def looks(silence: Silence[str], time: Time, seconds: int) -> list[str]:
    """Who is overdue at the end of some time in which the driver looks once a second."""
    found: list[str] = []
    for _ in range(seconds):
        time.pause(1.0)
        found = silence.overdue()
    return found


def test_who_was_silent_for_longer_than_the_limit_is_overdue() -> None:
    time = Time()
    silence: Silence[str] = Silence(60.0, time.clock)
    silence.heard("a")
    silence.heard("b")
    assert looks(silence, time, 40) == []
    silence.heard("b")
    assert looks(silence, time, 21) == ["a"]
    silence.forget("a")
    assert looks(silence, time, 30) == []
    assert looks(silence, time, 20) == ["b"]


def test_time_in_which_the_driver_itself_was_away_counts_against_nobody() -> None:
    time = Time()
    silence: Silence[str] = Silence(60.0, time.clock)
    silence.heard("a")
    assert looks(silence, time, 50) == []
    time.pause(150.0)  # a store that was gone
    silence.heard("b")
    assert silence.overdue() == []
    assert looks(silence, time, 9) == []
    assert looks(silence, time, 3) == ["a"]
    assert looks(silence, time, 50) == ["a", "b"]


def test_nodes_that_were_dead_before_the_sweep_excuse_nothing() -> None:
    time, dead = Time(), {"long gone"}
    watch = NodeWatch(lambda: set(dead), time.clock)
    time.pause(100.0)
    assert not watch.has_lost_one()


def test_a_node_that_was_lost_a_moment_ago_excuses_the_deaths_of_workers_for_a_while() -> None:
    time, dead = Time(), set[str]()
    watch = NodeWatch(lambda: set(dead), time.clock)
    dead.add("now")
    assert watch.has_lost_one()
    time.pause(29.0)
    assert watch.has_lost_one()
    time.pause(2.0)
    assert not watch.has_lost_one()


def test_a_loss_of_which_no_worker_died_is_dated_when_it_happened() -> None:
    time, dead = Time(), set[str]()
    watch = NodeWatch(lambda: set(dead), time.clock)
    dead.add("idle")
    for _ in range(60):
        time.pause(1.0)
        watch.look_if_due()
    assert not watch.has_lost_one()
