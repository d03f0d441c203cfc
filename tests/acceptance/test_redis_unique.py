"""Unique keys that are taken over, on a real Redis: in one script, before the bounds are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from uuid import uuid4

import pytest

from penstock.broker import Accepted, Answer, Conflict, Full
from penstock.engines.redis import open_engine
from penstock.engines.redis.handle import RedisEngine
from penstock.message import VERSION, Guard, Message, Unique
from penstock.outcome import Report, State
from penstock.queue import Queue


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = open_engine(f"{redis_url}?prefix=unique{uuid4().hex}")
    yield engine
    engine.close()


def publish(engine: RedisEngine, *batch: Message) -> Sequence[Answer]:
    return engine.run(engine.broker.publish(batch, 10.0))


def work(task_id: str, *guards: Guard, queue: str = "q") -> Message:
    return Message(VERSION, "work", b"[]", task_id, queue=queue, guards=guards)


def state(engine: RedisEngine, task_id: str) -> State:
    return engine.run(engine.backend.fetch([task_id]))[0].state


NEWEST = Unique("k", on_conflict="replace")


def test_the_holder_makes_room_for_its_heir(engine: RedisEngine) -> None:
    engine.run(engine.inspect.declare([Queue("q", max_length=1)]))
    told: SimpleQueue[Sequence[Report]] = SimpleQueue()
    assert publish(engine, work("old", NEWEST)) == [Accepted("old")]
    engine.backend.subscribe(["old"], told.put)
    assert publish(engine, work("new", NEWEST)) == [Accepted("new")]
    assert [report.state for report in told.get(timeout=10)] == [State.REVOKED]
    assert engine.run(engine.broker.depth("q")) == 1
    (info,) = engine.run(engine.inspect.queues())
    assert info.ready == 1


def test_room_in_another_queue_is_none_here(engine: RedisEngine) -> None:
    engine.run(engine.inspect.declare([Queue("q", max_length=1)]))
    publish(engine, work("other", queue="q"))
    publish(engine, work("old", NEWEST, queue="p"))
    assert [type(answer) for answer in publish(engine, work("new", NEWEST))] == [Full]
    assert state(engine, "old") is State.PENDING


def test_what_is_replaced_within_a_batch_leaves_its_other_keys(engine: RedisEngine) -> None:
    other = Unique("other")
    batch = [work("a", NEWEST, other), work("b", NEWEST), work("c", other), work("d", other)]
    answers = publish(engine, *batch)
    assert answers[:3] == [Accepted("a"), Accepted("b"), Accepted("c")]
    assert answers[3] == Conflict("other", "c")
    assert state(engine, "a") is State.REVOKED
    assert engine.run(engine.broker.depth("q")) == 2


def test_a_batch_that_does_not_fit_replaces_nothing(engine: RedisEngine) -> None:
    engine.run(engine.inspect.declare([Queue("q", max_length=2)]))
    publish(engine, work("old", NEWEST))
    assert [type(one) for one in publish(engine, work("new", NEWEST), work("x"), work("y"))] == [Full] * 3
    assert state(engine, "old") is State.PENDING
    assert publish(engine, work("k", Unique("k"))) == [Conflict("k", "old")]
