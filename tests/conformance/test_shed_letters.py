"""A queue that sheds all day does not fill its server with dead letters."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg

from penstock.broker import Accepted, Demand
from penstock.delivery import Dead, Settlement
from penstock.engine import Engine
from penstock.engines.postgres import open_engine as open_postgres
from penstock.engines.redis import open_engine as open_redis
from penstock.engines.redis.greeting import dial
from penstock.engines.redis.names import queue_key
from penstock.engines.redis.settings import read_settings
from penstock.message import Message
from penstock.queue import Queue

KEPT = 100_000
FILL = """
for i = 1, 100000 do redis.call('ZADD', KEYS[1] .. ':dl:' .. ARGV[1], i, 'old' .. i) end
for i = 1, 9 do redis.call('HSET', KEYS[1] .. ':dm', 'old' .. i, 'x') end
redis.call('HINCRBY', KEYS[1] .. ':q:' .. ARGV[1], 'dead', 100000)
"""


def declared() -> Queue:
    return Queue(f"letters-{uuid.uuid4().hex[:8]}", 1, overflow="drop-oldest")


def publish(engine: Engine, queue: str) -> str:
    [answer] = engine.run(engine.broker.publish([Message(1, "t", b"[[],{}]", queue=queue)], 10.0))
    assert isinstance(answer, Accepted)
    return engine.broker.public_id(answer.key)


def dead(engine: Engine, queue: str) -> list[str]:
    return [letter.id for letter in engine.run(engine.inspect.dead_letters(queue, KEPT + 10))]


async def in_redis(url: str, *command: str) -> object:
    settings = read_settings(url)
    wire = await dial(settings, *settings.address.hosts[0])
    answer = await wire.call(*(part.replace("{prefix}", settings.prefix) for part in command))
    wire.close()
    return answer


def test_redis_keeps_the_newest_of_a_queue(redis_url: str) -> None:
    queue = declared()
    key = queue_key("", queue.name)
    engine = open_redis(redis_url, queues=[queue])
    asyncio.run(in_redis(redis_url, "EVAL", FILL, "1", "{prefix}", key))
    shed = [publish(engine, queue.name) for _ in range(3)][:2]
    [info] = [one for one in engine.run(engine.inspect.queues()) if one.name == queue.name]
    assert (info.dead, info.shed) == (KEPT, 2)
    left = asyncio.run(in_redis(redis_url, "HMGET", "{prefix}:dm", "old1", "old2", "old3", *shed))
    assert isinstance(left, list) and [one is None for one in left] == [True, True, False, False, False]
    asyncio.run(in_redis(redis_url, "DEL", "{prefix}:dm", "{prefix}:dl:" + key))
    engine.close()


def test_postgres_keeps_the_newest_that_were_shed(postgres_url: str) -> None:
    async def do(*statements: str) -> None:
        connection = await asyncpg.connect(postgres_url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    queue = declared()
    engine = open_postgres(postgres_url, queues=[queue])
    asyncio.run(do("DELETE FROM penstock.dead WHERE nr IS NOT NULL", "SELECT setval('penstock.shed', 1000000)"))
    ids = [publish(engine, queue.name) for _ in range(6)]
    assert dead(engine, queue.name) == ids[:5]
    asyncio.run(do(f"SELECT setval('penstock.shed', 1000003 + {KEPT})"))
    ids.append(publish(engine, queue.name))
    assert dead(engine, queue.name) == ids[2:6], "two go for each that comes"
    ids.append(publish(engine, queue.name))
    assert dead(engine, queue.name) == ids[4:7]
    engine.close()


def test_postgres_keeps_the_newest_of_those_that_failed(postgres_url: str) -> None:
    async def skip_numbers() -> None:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(f"SELECT setval('penstock.shed', nextval('penstock.shed') + {KEPT} - 3)")
        await connection.close()

    queue = Queue(f"letters-{uuid.uuid4().hex[:8]}", 10)
    engine = open_postgres(postgres_url, queues=[queue])

    def fail() -> str:
        one = publish(engine, queue.name)
        [delivery] = engine.run(engine.broker.step([], Demand((queue.name,), 1, "w" * 32))).deliveries
        engine.run(engine.broker.step([Settlement(delivery.receipt, Dead("no"))], None))
        return one

    ids = [fail() for _ in range(3)]
    asyncio.run(skip_numbers())
    ids.append(fail())
    assert dead(engine, queue.name) == ids
    engine.run(engine.coordinator.reap())
    assert dead(engine, queue.name) == ids[2:]
    engine.close()
