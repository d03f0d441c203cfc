"""What other programs put into RabbitMQ, and texts that nobody expects, stop no worker."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pika
import pytest

from penstock.broker import DONE, Accepted, Demand
from penstock.coordinator import WorkerInfo
from penstock.delivery import Dead, Delivery, RetryAt, Settlement
from penstock.engines.rabbitmq import open_engine
from penstock.engines.rabbitmq.engine import RabbitEngine
from penstock.engines.rabbitmq.naming import NEWS
from penstock.errors import ConfigError
from penstock.message import VERSION, Message, pack

WORKER = "0" * 31 + "1"


@pytest.fixture
def engine(rabbitmq_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RabbitEngine]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = open_engine(rabbitmq_url)
    yield engine
    engine.close()


@pytest.fixture
def stranger(rabbitmq_url: str) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_url.rstrip("/") + "/%2F"))
    yield connection.channel()
    connection.close()


def receive(engine: RabbitEngine, queue: str, count: int = 1) -> list[Delivery]:
    found: list[Delivery] = []
    end = time.monotonic() + 10
    while len(found) < count and time.monotonic() < end:
        found += engine.run(engine.broker.step([], Demand((queue,), count, WORKER, wait=1.0))).deliveries
    return found


def settle(engine: RabbitEngine, settlements: Sequence[Settlement]) -> None:
    assert list(engine.run(engine.broker.step(settlements, None)).settled) == [DONE] * len(settlements)


def test_properties_that_are_no_text(
    engine: RabbitEngine, stranger: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    receive_nothing = engine.run(engine.broker.step([], Demand(("strange",), 1, WORKER)))
    assert not receive_nothing.deliveries
    stranger.exchange_declare("strange", "fanout", auto_delete=True)
    stranger.queue_bind("strange", "strange")
    ours = pika.BasicProperties(content_type="json", delivery_mode=2, message_id=b"\xff\xfe", type="t")
    stranger.basic_publish("strange", b"\xff\xff", b"not a message", ours)
    stranger.basic_publish("", "strange", b"nor this", pika.BasicProperties(message_id=b"\xff"))
    message = Message(VERSION, "\N{SNOWMAN}" * 200, b"[]", eta=float("inf"))
    stranger.basic_publish("", "strange", pack(message), pika.BasicProperties(message_id="one"))
    message = Message(VERSION, "\N{SNOWMAN}" * 200, b"[]")
    stranger.basic_publish("", "strange", pack(message), pika.BasicProperties(message_id="two"))
    found = receive(engine, "strange", 3)
    assert len({one.key for one in found}) == 3
    assert sorted(one.message is None for one in found) == [False, True, True]
    settle(engine, [Settlement(one.receipt, Dead("unreadable")) for one in found])
    assert len(engine.run(engine.inspect.dead_letters("strange"))) == 3


def test_news_of_strangers_end_no_connection(
    engine: RabbitEngine, stranger: pika.adapters.blocking_connection.BlockingChannel
) -> None:
    engine.run(engine.broker.step([], Demand(("told",), 1, WORKER)))
    assert engine.core.consumers is not None
    before = engine.core.consumers.connection
    bad = msgspec.msgpack.encode({"lane": "xx"}).replace(b"xx", b"\xff\xff")
    for body in (b"", b"\xc1", bad):
        stranger.basic_publish(NEWS, "", body)
    engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", queue="told")], 5))
    assert receive(engine, "told")
    assert engine.core.consumers.connection is before


@pytest.mark.parametrize("reason", ["no file \udcff", "x" * 300_000, "a\0b"])
def test_errors_may_say_anything(engine: RabbitEngine, reason: str) -> None:
    [answer] = engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", queue="said")], 5))
    assert isinstance(answer, Accepted)
    [delivery] = receive(engine, "said")
    settle(engine, [Settlement(delivery.receipt, Dead(reason))])
    [letter] = [one for one in engine.run(engine.inspect.dead_letters("said")) if one.id == answer.key]
    assert letter.reason[:3] == reason[:3].replace("\0", "\\")[:3] or letter.reason.startswith("a\\x00")


@pytest.mark.parametrize("id", ["two\nlines", "a\rb", "i" * 255, "\N{SNOWMAN}" * 85])
def test_a_chosen_id_is_charged_like_any(engine: RabbitEngine, rabbitmq_url: str, id: str) -> None:
    queue = f"charged-{time.monotonic_ns()}"
    engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", id=id, queue=queue)], 5))
    dying = open_engine(rabbitmq_url)
    worker = WorkerInfo(WORKER, "dying", "here", 1, 1, (queue,), "threads", time.time())
    dying.run(dying.coordinator.join(worker))
    [delivery] = receive(dying, queue)
    dying.broker.record_start(0, delivery.receipt)
    assert dying.run(dying.coordinator.bury(WORKER)) == 1  # as its parent would, that has seen it die
    dying.close()
    [again] = receive(engine, queue)
    assert again.message is not None
    assert (again.message.id, again.message.attempts) == (id, 1)
    later = RetryAt(time.time(), again.message)
    settle(engine, [Settlement(again.receipt, later)])
    [third] = receive(engine, queue)
    assert third.message is not None
    assert third.message.attempts == 1


def test_a_torn_charge_stops_nobody(engine: RabbitEngine) -> None:
    folder = Path(engine.core.starts.folder())
    (folder / "charges").write_text("17\nxx +a\n\n1795217463 +b")
    assert engine.core.charges.of("b") == 0


def test_a_queue_that_cannot_be_is_not_listed(engine: RabbitEngine) -> None:
    engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", queue="good")], 5))
    with pytest.raises(ConfigError, match="over 150 bytes"):
        engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", queue="\N{SNOWMAN}" * 60)], 5))
    assert "good" in [one.name for one in engine.run(engine.inspect.queues(None))]


def test_a_lane_that_ends_while_a_retry_waits_for_the_publisher(
    engine: RabbitEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.run(engine.broker.publish([Message(VERSION, "t", b"[]", queue="ended")], 5))
    [delivery] = receive(engine, "ended")
    assert engine.core.consumers is not None
    lane = engine.core.consumers.by_token[delivery.receipt[0]]
    get = engine.core.post.link.get

    async def slowly(timeout: float) -> object:
        lane.held.clear()  # as when its channel is lost
        return await get(timeout)

    monkeypatch.setattr(engine.core.post.link, "get", slowly)
    engine.run(engine.broker.step([Settlement(delivery.receipt, RetryAt(time.time(), delivery.message))], None))
