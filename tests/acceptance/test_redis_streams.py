"""Parts on a real Redis: they go with the result, by age and bytes, and who waits is told after a break, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from penstock.broker import Demand
from penstock.delivery import ACK, Delivery, Settlement
from penstock.engines.redis import open_engine
from penstock.engines.redis.handle import RedisEngine
from penstock.errors import StoreError
from penstock.message import VERSION, Message
from penstock.outcome import Outcome, State

KEEP = 0.8
"""Seconds for which the engine of these tests keeps results."""


@pytest.fixture
def prefix() -> str:
    return f"streams{uuid4().hex}"


@pytest.fixture
def engine(redis_url: str, prefix: str) -> Iterator[RedisEngine]:
    engine = open_engine(f"{redis_url}?prefix={prefix}", result_expires=KEEP)
    yield engine
    engine.close()


def command(engine: RedisEngine, *parts: Any) -> Any:
    """`parts` of a command, with the name of a key behind the prefix as the second."""
    return engine.run(engine.link.command(parts[0], f"{engine.settings.prefix}:{parts[1]}", *parts[2:]))


def running(engine: RedisEngine, task_id: str | None = None) -> Delivery:
    engine.run(engine.broker.publish([Message(VERSION, "work", b"[]", task_id, queue="q")], 10.0))
    (delivery,) = engine.run(engine.broker.step([], Demand(("q",), 1, "w", 600.0))).deliveries
    return delivery


def append(engine: RedisEngine, task_id: object, *values: bytes, mark: int = 0) -> bool:
    mark = mark or time.time_ns()
    return engine.run(engine.backend.append(str(task_id), 0, mark, [(value, "json") for value in values]))


def values(engine: RedisEngine, task_id: object) -> list[bytes]:
    return [part.value for part in engine.run(engine.backend.parts(str(task_id), 0, 100)).parts]


def end(engine: RedisEngine, delivery: Delivery, *, outcome: bool = True) -> None:
    ended = Outcome(State.SUCCESS, b"1", time.time()) if outcome else None
    engine.run(engine.broker.step([Settlement(delivery.receipt, ACK, ended)], None))


def pass_time(engine: RedisEngine, seconds: float) -> None:
    time.sleep(seconds)
    engine.run(engine.coordinator.reap())


def nothing_is_left(engine: RedisEngine) -> None:
    for key in ("ps", "od", "o", "stale"):
        assert command(engine, "EXISTS", key) == 0, key
    assert engine.run(engine.link.command("KEYS", f"{engine.settings.prefix}:pl:*")) == []
    assert int(command(engine, "GET", "ob") or 0) == 0


def test_they_expire_with_the_result(engine: RedisEngine) -> None:
    delivery = running(engine)
    append(engine, delivery.key, b"0", b"1")
    pass_time(engine, KEEP * 1.2)
    assert values(engine, delivery.key) == [b"0", b"1"], "it still runs"
    end(engine, delivery)
    pass_time(engine, KEEP * 0.5)
    assert values(engine, delivery.key) == [b"0", b"1"]
    pass_time(engine, KEEP * 0.8)
    assert values(engine, delivery.key) == []
    nothing_is_left(engine)


def test_those_of_a_stranger_go_when_nothing_was_added_for_as_long(engine: RedisEngine) -> None:
    append(engine, "stranger", b"0")
    pass_time(engine, KEEP * 0.6)
    append(engine, "stranger", b"1")
    pass_time(engine, KEEP * 0.6)
    assert values(engine, "stranger") == [b"0", b"1"]
    pass_time(engine, KEEP * 0.6)
    assert values(engine, "stranger") == []
    nothing_is_left(engine)


def test_the_result_of_a_stranger_is_kept_for_its_own_time(engine: RedisEngine) -> None:
    append(engine, "stranger", b"0")
    pass_time(engine, KEEP * 0.6)
    engine.run(engine.backend.store([("stranger", Outcome(State.SUCCESS, b"1", time.time()))]))
    pass_time(engine, KEEP * 0.6)
    assert engine.run(engine.backend.fetch(["stranger"]))[0].state is State.SUCCESS
    assert values(engine, "stranger") == [b"0"]
    pass_time(engine, KEEP * 0.6)
    nothing_is_left(engine)


def test_those_of_a_task_without_a_result_are_a_strangers(engine: RedisEngine) -> None:
    delivery = running(engine)
    append(engine, delivery.key, b"0")
    end(engine, delivery, outcome=False)
    pass_time(engine, KEEP * 0.6)
    assert append(engine, delivery.key, b"1")
    pass_time(engine, KEEP * 0.6)
    assert values(engine, delivery.key) == [b"0", b"1"]
    pass_time(engine, KEEP * 0.6)
    nothing_is_left(engine)


def test_a_stranger_that_turns_out_to_be_a_task_keeps_them(engine: RedisEngine) -> None:
    append(engine, "early", b"0")
    delivery = running(engine, "early")
    pass_time(engine, KEEP * 1.2)
    assert values(engine, "early") == [b"0"], "it still runs"
    end(engine, delivery)
    pass_time(engine, KEEP * 0.6)
    assert values(engine, "early") == [b"0"]
    pass_time(engine, KEEP * 0.6)
    nothing_is_left(engine)


def test_bytes_of_strangers_are_bounded(redis_url: str, prefix: str) -> None:
    engine = open_engine(f"{redis_url}?prefix={prefix}", result_max_bytes=100_000)
    for number in range(6):
        append(engine, f"stranger{number}", b"x" * 30_000)
    assert [len(values(engine, f"stranger{number}")) for number in range(6)] == [0, 0, 0, 1, 1, 1]
    engine.close()


def test_their_bytes_are_bytes_of_results(redis_url: str, prefix: str) -> None:
    engine = open_engine(f"{redis_url}?prefix={prefix}", result_max_bytes=100_000)
    deliveries = [running(engine) for _ in range(6)]
    for delivery in deliveries:
        append(engine, delivery.key, b"x" * 30_000)
    assert [len(values(engine, one.key)) for one in deliveries] == [1] * 6, "what runs keeps them"
    for delivery in deliveries:
        end(engine, delivery)
    engine.run(engine.coordinator.reap())
    assert [len(values(engine, one.key)) for one in deliveries] == [0, 0, 0, 1, 1, 1]
    for delivery in deliveries:
        assert engine.run(engine.backend.fetch([delivery.key]))[0].state in (State.SUCCESS, State.UNKNOWN)
    assert int(command(engine, "GET", "ob")) <= 100_000
    engine.run(engine.backend.forget([str(one.key) for one in deliveries]))
    assert command(engine, "EXISTS", "ps") == 0
    engine.close()


def test_who_waits_is_told_after_a_break(engine: RedisEngine, redis_url: str, prefix: str) -> None:
    other = open_engine(f"{redis_url}?prefix={prefix}", result_expires=KEEP)
    delivery, told = running(engine), threading.Event()
    subscription = other.backend.subscribe_parts(delivery.key, told.set)
    wait_until(lambda: command(engine, "EXISTS", "pi") == 1)
    listener = other.link._listener
    assert listener is not None
    other.thread.soon(listener.close)
    wait_until(lambda: other.link._listener not in (None, listener))
    append(engine, delivery.key, b"0")
    assert told.wait(10)
    subscription.close()
    wait_until(lambda: command(engine, "EXISTS", "pi") == 0)
    other.close()


def test_who_has_died_is_forgotten(engine: RedisEngine, redis_url: str, prefix: str) -> None:
    other = open_engine(f"{redis_url}?prefix={prefix}")
    other.backend.subscribe_parts("task", lambda: None)
    wait_until(lambda: command(engine, "EXISTS", "pi") == 1)
    other.close()
    wait_until(lambda: engine.run(engine.coordinator.reap()) == 0 and command(engine, "EXISTS", "pi") == 0)


def test_damage_is_told(engine: RedisEngine) -> None:
    delivery = running(engine)
    append(engine, delivery.key, b"0")
    command(engine, "LSET", f"pl:{delivery.key}", 0, b"\xc1")
    with pytest.raises(StoreError, match=r"part 0 of .* is damaged"):
        values(engine, delivery.key)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
