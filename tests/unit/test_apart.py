"""Revoking and retrying where results are on another server than tasks."""

from __future__ import annotations

import pytest

from penstock import apart
from penstock.broker import Demand
from penstock.coordinator import Revoked
from penstock.delivery import ACK, Dead, Settlement
from penstock.engines.memory import MemoryEngine, open_engine
from penstock.message import VERSION, Message
from penstock.outcome import Outcome, State

NOW = 1000.0


@pytest.fixture
def tasks() -> MemoryEngine:
    engine = open_engine("memory://")
    messages = [Message(VERSION, "t", b"[]", id=one) for one in ("taken", "waiting")]
    engine.run(engine.broker.publish(messages, 5.0))
    return engine


@pytest.fixture
def results() -> MemoryEngine:
    return open_engine("memory://")


def states(engine: MemoryEngine, *ids: str) -> list[State]:
    return [report.state for report in engine.run(engine.backend.fetch(ids))]


def test_who_waits_for_what_is_removed_is_told_elsewhere(tasks: MemoryEngine, results: MemoryEngine) -> None:
    tasks.run(tasks.broker.step([], Demand(("default",), 1, "worker")))
    found = tasks.run(apart.revoke(tasks, results, ["taken", "waiting", "unseen"], NOW))
    assert list(found) == [Revoked.RUNNING, Revoked.REMOVED, Revoked.REMEMBERED]
    assert states(results, "taken", "waiting", "unseen") == [State.UNKNOWN, State.REVOKED, State.UNKNOWN]


def test_a_result_that_came_first_stays(tasks: MemoryEngine, results: MemoryEngine) -> None:
    results.run(results.backend.store([("waiting", Outcome(State.SUCCESS, b"1", NOW))]))
    tasks.run(apart.revoke(tasks, results, ["waiting"], NOW))
    assert states(results, "waiting") == [State.SUCCESS]


def test_a_retried_dead_letter_has_not_ended_elsewhere(tasks: MemoryEngine, results: MemoryEngine) -> None:
    step = tasks.run(tasks.broker.step([], Demand(("default",), 2, "worker")))
    dead, done = step.deliveries
    tasks.run(tasks.broker.step([Settlement(dead.receipt, Dead("no use")), Settlement(done.receipt, ACK)], None))
    outcomes = [("taken", Outcome(State.FAILURE, b"0", NOW)), ("waiting", Outcome(State.SUCCESS, b"1", NOW))]
    results.run(results.backend.store(outcomes))
    assert tasks.run(apart.retry_dead(tasks, results, ["taken", "waiting"])) == 1
    assert states(results, "taken", "waiting") == [State.UNKNOWN, State.SUCCESS]
