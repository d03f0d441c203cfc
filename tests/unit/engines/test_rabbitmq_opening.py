"""Opening an engine on a real RabbitMQ: what cannot be used is told at once, by name, without the password."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from pika import spec

from penstock.broker import Accepted, Demand
from penstock.engines.rabbitmq import open_engine
from penstock.engines.rabbitmq.engine import RabbitEngine
from penstock.errors import BrokerUnavailable, ConfigError, PenstockError, UnknownQueue, Unsupported
from penstock.message import Message
from penstock.queue import Queue
from tests.servers.process import free_port


@pytest.fixture
def engine(rabbitmq_url: str) -> Iterator[RabbitEngine]:
    engine = open_engine(rabbitmq_url)
    yield engine
    engine.close()


def name() -> str:
    return f"opening-{uuid.uuid4().hex[:8]}"


def ask(engine: RabbitEngine, method: Any, answer: type) -> Any:
    """Call the server as somebody else would."""

    async def call() -> Any:
        publisher = await engine.core.post.link.get(5)
        return await publisher.topology.ask(method, answer)

    return engine.run(call())


def refused(url: str, error: type[PenstockError], **settings: Any) -> str:
    with pytest.raises(error) as found:
        open_engine(url, **settings)
    return str(found.value)


def test_a_wrong_password(rabbitmq_url: str) -> None:
    text = refused(rabbitmq_url.replace("guest:guest", "guest:wr0ng"), ConfigError)
    assert "wr0ng" not in text
    assert "password" in text
    assert "guest@127.0.0.1" in text


def test_a_virtual_host_that_is_not_there(rabbitmq_url: str) -> None:
    text = refused(f"{rabbitmq_url}nowhere", ConfigError)
    assert "nowhere" in text
    assert "virtual host" in text


def test_nobody_there() -> None:
    port = free_port()
    assert str(port) in refused(f"amqp://me:hush@127.0.0.1:{port}/", BrokerUnavailable)


def test_somebody_else_there() -> None:
    """Who takes the call and never answers is given up in time."""

    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"amqp://127.0.0.1:{port}/?connect_timeout=0.2"
        text = await asyncio.to_thread(refused, url, BrokerUnavailable)
        assert "did not answer" in text
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_the_second_host_is_tried(rabbitmq_url: str) -> None:
    engine = open_engine(rabbitmq_url.replace("127.0.0.1", f"127.0.0.1:{free_port()},127.0.0.1"))
    engine.close()


def test_strict_durability_cannot_be_verified(rabbitmq_url: str) -> None:
    assert "quorum_status" in refused(rabbitmq_url, ConfigError, durability="strict")


def test_what_is_not_known_of_replicas_is_said(rabbitmq_url: str, caplog: pytest.LogCaptureFixture) -> None:
    open_engine(rabbitmq_url).close()
    assert "how many nodes" in caplog.text


def test_a_queue_with_other_arguments(rabbitmq_url: str, engine: RabbitEngine) -> None:
    queue = name()
    ask(engine, spec.Queue.Declare(0, queue, durable=True), spec.Queue.DeclareOk)
    text = refused(rabbitmq_url, ConfigError, queues=[Queue(queue)])
    for part in (queue, "another 'x-", "declare=passive"):
        assert part in text
    # The remedy works: it is used as it is.
    passive = open_engine(f"{rabbitmq_url}?declare=passive", queues=[Queue(queue)])
    [answer] = passive.run(passive.broker.publish([Message(1, "task", b"[]", queue=queue)], 5))
    assert isinstance(answer, Accepted)
    [delivery] = passive.run(passive.broker.step([], Demand((queue,), 1, "w", wait=5))).deliveries
    assert delivery.message is not None
    assert not passive.broker.features.delay
    passive.close()


def test_passive_declares_nothing(rabbitmq_url: str) -> None:
    engine = open_engine(f"{rabbitmq_url}?declare=passive")
    with pytest.raises(UnknownQueue):
        engine.run(engine.broker.publish([Message(1, "task", b"[]", queue=name())], 5))
    engine.close()


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_an_exchange_of_ones_own(rabbitmq_url: str, engine: RabbitEngine, kind: str) -> None:
    """Others who are bound to it see the tasks as well."""
    queue, spy, exchange = name(), name(), name()
    ours = open_engine(f"{rabbitmq_url}?exchange={exchange}&exchange_type={kind}", queues=[Queue(queue)])
    ask(engine, spec.Queue.Declare(0, spy), spec.Queue.DeclareOk)
    ask(engine, spec.Queue.Bind(0, spy, exchange, queue), spec.Queue.BindOk)
    ours.run(ours.broker.publish([Message(1, "task", b"[]", queue=queue)], 5))
    [delivery] = ours.run(ours.broker.step([], Demand((queue,), 1, "w", wait=5))).deliveries
    assert delivery.message is not None
    assert ask(engine, spec.Queue.Declare(0, spy, passive=True), spec.Queue.DeclareOk).message_count == 1
    ours.close()


def test_a_queue_that_was_deleted_is_made_again(engine: RabbitEngine) -> None:
    queue = name()
    publish = [Message(1, "task", b"[]", queue=queue)]
    engine.run(engine.broker.publish(publish, 5))
    ask(engine, spec.Queue.Delete(0, queue), spec.Queue.DeleteOk)
    [answer] = engine.run(engine.broker.publish(publish, 5))
    assert isinstance(answer, Accepted)
    assert len(engine.run(engine.broker.step([], Demand((queue,), 1, "w", wait=5))).deliveries) == 1


def test_coordination_is_refused_with_a_remedy(engine: RabbitEngine) -> None:
    calls: list[Coroutine[Any, Any, Any]] = [
        engine.coordinator.revoke(["id"]),
        engine.coordinator.acquire("leader", "me", 5),
        engine.coordinator.put("key", b"value"),
    ]
    for call in calls:
        with pytest.raises(Unsupported, match="result_backend"):
            engine.run(call)
