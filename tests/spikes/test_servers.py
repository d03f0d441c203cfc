"""The private servers answer, and lose nothing they confirmed when they are killed."""

import asyncio
import signal
from pathlib import Path

import aio_pika
import redis

from tests.servers import redis_server


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping() is True


def test_redis_keeps_a_write_through_a_kill(redis_url: str, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        server.stop(signal.SIGKILL)
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"


def test_rabbitmq_confirms_into_a_quorum_queue(rabbitmq_url: str) -> None:
    async def publish_and_get() -> tuple[object, bytes]:
        async with await aio_pika.connect(rabbitmq_url) as connection:
            channel = await connection.channel(publisher_confirms=True)
            queue = await channel.declare_queue("spike", durable=True, arguments={"x-queue-type": "quorum"})
            message = aio_pika.Message(b"work", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            confirmed = await channel.default_exchange.publish(message, "spike", mandatory=True, timeout=10)
            delivery = await queue.get(timeout=10)
            await delivery.ack()
            return confirmed, delivery.body

    confirmed, body = asyncio.run(publish_and_get())
    assert type(confirmed).__name__ == "Ack"
    assert body == b"work"
