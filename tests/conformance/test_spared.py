"""What servers read of a waiting message, to know whether it may be shed, is what `penstock.shedding` says of it."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

import asyncpg
import pytest

from penstock.broker import Accepted, Full
from penstock.engine import Engine
from penstock.engines.postgres import open_engine as open_postgres
from penstock.engines.redis import open_engine as open_redis
from penstock.message import (
    OWN_HEADERS,
    Dedup,
    Limit,
    Message,
    Options,
    Place,
    Signed,
    Unique,
    beginning_id,
    node_id,
    pack,
)
from penstock.queue import Queue
from penstock.shedding import is_spared

GRAPH = uuid.uuid4().hex
TIMEOUT = 10.0


def message(**fields: Any) -> Message:
    return Message(**{"version": 1, "task": "shop.add", "body": b"[[],{}]", **fields})


MESSAGES = {
    "plain": message(),
    "empty": message(task="", body=b""),
    "300 bytes": message(body=b"x" * 300),
    "70,000 bytes": message(body=b"x" * 70_000),
    "a long name": message(task="ü" * 100),
    "a name of 40": message(task="shop.add" * 5),
    "all fields": message(
        id="one", partition="p", eta=1.0, expires=2e9, sent=1.7e9, content_type="msgpack+zstd", priority=9
    ),
    "guards": message(guards=(Unique("k", "start", 60.0), Dedup("d", 5.0), Limit("l", 1.5, 2.0, 3))),
    "signed": message(signed=Signed("key", b"\xc1" * 64, "one", "sha256", 1.0, "join", 3)),
    "options": message(options=Options(1.5, 1.0, False, 300, "root", "parent")),
    "ignored": message(options=Options(ignore_result=True)),
    "headers": message(headers={"from": "me", f"of {OWN_HEADERS}": OWN_HEADERS}),
    "many headers": message(headers={f"name-{n}": "x" * n for n in range(40)}),
    "options and headers": message(options=Options(ignore_result=True), headers={"a": "b"}),
    "a like id": message(id=f"{GRAPH}.closed"),
    "a longer id": message(id=f"{GRAPH}0.1"),
    "a large number": message(id=f"{GRAPH}.1234567890"),
    "an id in capitals": message(id=f"{GRAPH.upper()}G.1"),
    "retries": message(retries=1),
    "many retries": message(retries=300),
    "attempts": message(attempts=1),
    "snoozes": message(headers={"from": "me", f"{OWN_HEADERS}snoozes": "1"}),
    "many headers, and ours": message(headers={**{f"n-{n}": "" for n in range(40)}, f"{OWN_HEADERS}x": ""}),
    "options, and ours": message(options=Options(), headers={f"{OWN_HEADERS}snoozes": "1"}),
    "a place": message(options=Options(place=Place(GRAPH, 7))),
    "a full place": message(options=Options(1.0, 1.0, True, 3, "r", "p", Place(GRAPH, 7, b"[", b"]"))),
    "a node": message(id=node_id(GRAPH, 7)),
    "a beginning": message(id=beginning_id(GRAPH)),
}


async def ask_postgres(url: str, bodies: list[bytes]) -> list[tuple[bytes | None, bool]]:
    connection = await asyncpg.connect(url)
    sql = "SELECT (m).task, (m).told FROM (SELECT penstock.may_go(b) FROM unnest($1::bytea[]) b) x (m)"
    rows = [tuple(row) for row in await connection.fetch(sql, bodies)]
    await connection.close()
    return rows


def test_postgres_reads_what_is_spared(postgres_url: str) -> None:
    open_postgres(postgres_url).close()
    found = asyncio.run(ask_postgres(postgres_url, [pack(one) for one in MESSAGES.values()]))
    for (name, one), (task, told) in zip(MESSAGES.items(), found, strict=True):
        assert task == (None if is_spared(one) else one.task.encode()), name
        assert task is None or told is not (one.options is not None and one.options.ignore_result is True), name


def test_postgres_reads_what_nobody_can(postgres_url: str) -> None:
    """Bytes of all kinds make no error: whoever publishes then did nothing wrong."""
    open_postgres(postgres_url).close()
    dice = random.Random(7)
    whole = [pack(one) for name, one in MESSAGES.items() if len(one.body) < 1000]
    bodies = [one[:cut] for one in whole for cut in range(0, len(one), 3)]
    for one in whole * 40:
        data = bytearray(one)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.choice((dice.randrange(256), 0xDB, 0xDF, 0xC9, 0xC1))
        bodies.append(bytes(data))
    bodies += [dice.randbytes(dice.randint(0, 60)) for _ in range(500)]
    asyncio.run(ask_postgres(postgres_url, [*bodies, b"\xdc\x00\x12" + b"\xdf\xff\xff\xff\xff" * 9]))


@pytest.mark.parametrize("name", MESSAGES)
def test_redis_sheds_all_but_what_is_spared(name: str, redis_url: str) -> None:
    queue = f"spared-{uuid.uuid4().hex[:8]}"
    one = MESSAGES[name]
    one.queue = queue
    engine = open_redis(redis_url, queues=[Queue(queue, 1, overflow="drop-oldest")])
    [accepted] = engine.run(engine.broker.publish([one], TIMEOUT))
    assert isinstance(accepted, Accepted)
    [answer] = engine.run(engine.broker.publish([message(queue=queue)], TIMEOUT))
    assert isinstance(answer, Full if is_spared(one) else Accepted)
    [report] = engine.run(engine.backend.fetch([accepted.key]))
    if not is_spared(one):
        ignored = one.options is not None and one.options.ignore_result is True
        assert (report.state, report.task, report.outcome is None) == ("FAILURE", one.task, ignored)
    engine.close()


@pytest.mark.parametrize(("server", "looks"), [("redis_url", 1000), ("postgres_url", 250)])
@pytest.mark.parametrize("more", [0, 1])
def test_no_more_are_looked_at_than_a_publish_may_cost(
    server: str, looks: int, more: int, request: pytest.FixtureRequest
) -> None:
    queue, parts = f"spared-{uuid.uuid4().hex[:8]}", looks + more
    opened = open_redis if server == "redis_url" else open_postgres
    engine: Engine = opened(request.getfixturevalue(server), queues=[Queue(queue, parts + 1, overflow="drop-oldest")])
    part = message(queue=queue, options=Options(place=Place(GRAPH, 1)))
    for batch in ([part] * looks, [part] * more, [message(queue=queue)]):
        engine.run(engine.broker.publish(batch, TIMEOUT))
    [answer] = engine.run(engine.broker.publish([message(queue=queue)], TIMEOUT))
    assert isinstance(answer, Full if more else Accepted)
    engine.close()
