"""A message published alone takes a short way through the server's script: nobody can tell from what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import uuid4

import pytest
from msgspec.structs import replace

from penstock.broker import Accepted, Answer, Demand, Duplicate, Full
from penstock.coordinator import Revoked
from penstock.delivery import Dead, Settlement
from penstock.engines.redis import open_engine
from penstock.engines.redis.handle import RedisEngine
from penstock.message import VERSION, Dedup, Limit, Message, Unique
from penstock.outcome import State
from penstock.queue import Queue, QueueInfo


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = open_engine(f"{redis_url}?prefix=lone{uuid4().hex}")
    yield engine
    engine.close()


def publish(engine: RedisEngine, *batch: Message) -> Sequence[Answer]:
    return engine.run(engine.broker.publish(batch, 10.0))


def work(queue: str, id: str | None = None) -> Message:
    return Message(VERSION, "work", b"[]", id, queue)


def there(engine: RedisEngine, queue: str) -> QueueInfo:
    (info,) = [one for one in engine.run(engine.inspect.queues()) if one.name == queue]
    return replace(info, name="", oldest_age=None)


def test_what_came_alone_counts_like_what_came_together(engine: RedisEngine) -> None:
    for number in range(6):
        publish(engine, work("ones", f"o{number}"))
    publish(engine, *(work("many", f"m{number}") for number in range(6)))
    assert there(engine, "ones") == there(engine, "many")
    step = engine.run(engine.broker.step([], Demand(("ones",), 10, "w", lease=30.0)))
    assert [delivery.key for delivery in step.deliveries] == [f"o{number}" for number in range(6)]


@pytest.mark.parametrize("bounds", [{"max_length": 3}, {"max_bytes": 1}])
def test_a_full_queue_refuses_what_comes_alone(engine: RedisEngine, bounds: dict[str, int]) -> None:
    publish(engine, work("ones"))
    size = there(engine, "ones").bytes
    assert size is not None
    bounds = {name: bound * size * 3 if name == "max_bytes" else bound for name, bound in bounds.items()}
    engine.run(engine.inspect.declare([Queue("ones", **bounds)]))
    answers = [publish(engine, work("ones"))[0] for _ in range(3)]
    assert [type(answer) for answer in answers] == [Accepted, Accepted, Full]
    assert there(engine, "ones").ready == 3


def test_what_is_known_is_not_accepted_again(engine: RedisEngine) -> None:
    publish(engine, work("ones", "first"))
    publish(engine, work("ones", "again"))
    assert publish(engine, work("ones", "again")) == [Duplicate("again")]
    step = engine.run(engine.broker.step([], Demand(("ones",), 1, "w", lease=30.0)))
    engine.run(engine.broker.step([Settlement(step.deliveries[0].receipt, Dead("no use"))], None))
    assert publish(engine, work("ones", "first")) == [Duplicate("first")]
    assert there(engine, "ones").ready == 1


def test_what_was_revoked_before_it_came_ends_at_once(engine: RedisEngine) -> None:
    publish(engine, work("ones"))
    assert engine.run(engine.coordinator.revoke(["early"])) == [Revoked.REMEMBERED]
    publish(engine, work("ones", "early"))
    assert engine.run(engine.backend.fetch(["early"]))[0].state is State.REVOKED
    assert there(engine, "ones").ready == 1


@pytest.mark.parametrize(
    "batch",
    [
        [work("ones")],
        [work("ones")] * 5,
        [work("ones", "named")],
        [replace(work("ones"), eta=2e9)],
        [replace(work("ones"), guards=(Unique("k", on_conflict="replace"), Dedup("d", 60.0)))],
        [replace(work("ones"), guards=(Limit("l", rate=5.0),))],
    ],
)
def test_what_is_refused_is_not_written(engine: RedisEngine, batch: list[Message]) -> None:
    """At overload most calls are: the append-only file must not grow by them."""

    def writes() -> str:
        info = engine.run(engine.link.command("INFO", "persistence")).decode()
        return next(line for line in info.splitlines() if line.startswith("rdb_changes_since_last_save:"))

    engine.run(engine.inspect.declare([Queue("ones", max_length=1)]))
    publish(engine, work("ones"))
    before = writes()
    assert all(isinstance(answer, Full) for answer in publish(engine, *batch))
    assert writes() == before
    publish(engine, work("others"))
    assert writes() != before
