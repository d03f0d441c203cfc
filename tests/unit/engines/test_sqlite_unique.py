"""Unique keys that the newest message takes over: in full queues, in batches, and by whom nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.broker import Accepted, Answer, Conflict, Demand, Full
from penstock.clock import ManualClock
from penstock.coordinator import Revoked
from penstock.engine import Engine
from penstock.engines.sqlite import open_engine
from penstock.message import Message, Unique
from penstock.outcome import State
from penstock.queue import Queue, QueueInfo

NEWEST = Unique("key", on_conflict="replace")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine(tmp_path: Path, clock: ManualClock) -> Engine:
    return open_engine(f"sqlite:///{tmp_path}/queue.db", clock=clock, durability="process")


def publish(engine: Engine, *messages: Message) -> list[Answer]:
    return list(engine.run(engine.broker.publish(messages, 5)))


def unique(guard: Unique, body: bytes = b"[]", queue: str = "default") -> Message:
    return Message(1, "t", body, queue=queue, guards=(guard,))


def state(engine: Engine, answer: Answer) -> State:
    assert isinstance(answer, Accepted)
    return engine.run(engine.backend.fetch([answer.key]))[0].state


def info(engine: Engine, queue: str = "default") -> QueueInfo:
    [found] = [one for one in engine.run(engine.inspect.queues()) if one.name == queue]
    return found


def test_in_a_full_queue_the_newest_takes_the_place_of_the_former(engine: Engine) -> None:
    engine.run(engine.inspect.declare([Queue("default", max_length=2)]))
    first, _ = publish(engine, unique(NEWEST), Message(1, "t", b"[]"))
    second = publish(engine, unique(NEWEST, b"[2]"))[0]
    assert state(engine, first) is State.REVOKED
    assert state(engine, second) is State.PENDING
    assert info(engine).depth == 2
    assert isinstance(publish(engine, Message(1, "t", b"[]"))[0], Full)


def test_whoever_is_refused_takes_no_key(engine: Engine) -> None:
    engine.run(engine.inspect.declare([Queue("full", max_length=1)]))
    holder = publish(engine, unique(NEWEST))[0]
    publish(engine, Message(1, "t", b"[]", queue="full"))
    assert isinstance(publish(engine, unique(NEWEST, queue="full"))[0], Full)
    assert state(engine, holder) is State.PENDING
    assert isinstance(publish(engine, unique(Unique("key")))[0], Conflict)


def test_a_batch_that_replaces_itself_takes_one_place(engine: Engine) -> None:
    engine.run(engine.inspect.declare([Queue("default", max_length=1)]))
    answers = publish(engine, *(unique(NEWEST, b"[%d]" % n) for n in range(3)))
    assert [state(engine, one) for one in answers] == [State.REVOKED, State.REVOKED, State.PENDING]
    assert info(engine).depth == 1
    [delivery] = engine.run(engine.broker.step([], Demand(("default",), 9, "0" * 32))).deliveries
    assert delivery.message is not None
    assert delivery.message.body == b"[2]"


def test_bytes_of_who_leaves_are_freed_first(engine: Engine) -> None:
    publish(engine, unique(NEWEST, b"[%s]" % (b"1" * 1000)))
    engine.run(engine.inspect.declare([Queue("default", max_bytes=info(engine).bytes)]))
    assert isinstance(publish(engine, unique(NEWEST, b"[%s]" % (b"1" * 1001)))[0], Full)
    assert isinstance(publish(engine, unique(NEWEST, b"[%s]" % (b"1" * 999)))[0], Accepted)


def test_of_a_batch_that_replaces_itself_the_last_must_fit(engine: Engine) -> None:
    publish(engine, Message(1, "t", b"[]"))
    engine.run(engine.inspect.declare([Queue("default", max_bytes=info(engine).bytes + 200)]))
    small, large = unique(NEWEST, b"[]"), unique(NEWEST, b"[%s]" % (b"1" * 200))
    assert isinstance(publish(engine, small, large)[1], Full)
    assert isinstance(publish(engine, large, small)[1], Accepted)


def test_a_key_that_only_time_frees_outlives_its_task(engine: Engine, clock: ManualClock) -> None:
    guard = Unique("key", until="ttl", ttl=60.0)
    [holder] = publish(engine, unique(guard))
    assert isinstance(holder, Accepted)
    assert engine.run(engine.coordinator.revoke([holder.key])) == [Revoked.REMOVED]
    assert isinstance(publish(engine, unique(guard))[0], Conflict)
    clock.advance(61.0)
    assert isinstance(publish(engine, unique(guard))[0], Accepted)


def test_one_that_runs_is_revoked_by_who_cancels(engine: Engine) -> None:
    holder = publish(engine, unique(NEWEST))[0]
    [delivery] = engine.run(engine.broker.step([], Demand(("default",), 1, "0" * 32))).deliveries
    publish(engine, unique(NEWEST))
    assert engine.run(engine.broker.extend([delivery.receipt], 30.0))[0].__class__.__name__ == "Held"
    publish(engine, unique(Unique("key", on_conflict="cancel")))
    assert engine.run(engine.broker.extend([delivery.receipt], 30.0))[0].__class__.__name__ == "Held", (
        "no holder any more"
    )
    assert state(engine, holder) is State.PENDING
    [heir] = engine.run(engine.broker.step([], Demand(("default",), 1, "0" * 32))).deliveries
    publish(engine, unique(Unique("key", on_conflict="cancel")))
    assert engine.run(engine.broker.extend([heir.receipt], 30.0))[0].__class__.__name__ == "Cancelled"
