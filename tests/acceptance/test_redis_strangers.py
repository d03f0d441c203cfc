"""What strangers write into Redis under our names stops nobody."""

from collections.abc import Iterator

import pytest

from penstock.broker import Demand
from penstock.engines.redis import RedisEngine, open_engine
from penstock.message import VERSION, Message


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = open_engine(f"{redis_url}?prefix=strangers")
    yield engine
    engine.close()


@pytest.mark.parametrize("letter", [b"w\xff", b"r\x00", b"r\x00\x00\x00\x01\xff\x00\x00\x00\x01x", b"", b"zz"])
def test_letters_that_are_none_end_no_connection(engine: RedisEngine, letter: bytes) -> None:
    listener = engine.link._listener
    channel = f"{engine.settings.prefix}:c:{engine.client}"
    assert engine.run(engine.link.command("PUBLISH", channel, letter)) == 1
    engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", queue="q")], 5))
    assert engine.run(engine.broker.step([], Demand(("q",), 1, "w", wait=1.0))).deliveries
    assert engine.link._listener is listener
    assert listener is not None
    assert not listener.lost.done()


def test_a_worker_that_cannot_be_read_is_not_listed(engine: RedisEngine) -> None:
    prefix = engine.settings.prefix
    for worker, info in (("a", b"\xc1"), ("b", b"\x90")):
        engine.run(engine.link.command("HSET", f"{prefix}:wk", worker, info))
        engine.run(engine.link.command("ZADD", f"{prefix}:wa", 9e12, worker))
    assert engine.run(engine.coordinator.workers()) == []
