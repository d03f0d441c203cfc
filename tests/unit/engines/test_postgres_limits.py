"""Limits as PostgreSQL keeps them: it decides as `penstock.limiting` does, and forgets what nobody uses."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from penstock import limiting
from penstock.broker import Accepted, Demand
from penstock.delivery import ACK, Delivery, Receipt, Settlement
from penstock.engines.postgres import open_engine
from penstock.engines.postgres.engine import PostgresEngine
from penstock.limiting import Limiter
from penstock.message import Limit, Message
from penstock.queue import Queue

QUEUE, BEGUN = "limited", 1_800_000_000.0
LINE = "SELECT coalesce(max(line), 0) FROM meter WHERE limiter = $1"
Work = Callable[[Any], Coroutine[Any, Any, Any]]


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """A schema of its own."""
    yield f"{postgres_url}?schema=limits"
    sql(postgres_url, lambda connection: connection.execute("DROP SCHEMA limits CASCADE"))


@pytest.fixture
def engine(url: str) -> Iterator[PostgresEngine]:
    engine = open_engine(url)
    assert isinstance(engine, PostgresEngine)
    yield engine
    engine.close()


def sql(url: str, work: Work) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url.partition("?")[0], server_settings={"search_path": "limits"})
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def message(limit: Limit, number: int = 0) -> Message:
    return Message(1, "t", b"%d" % number, queue=QUEUE, guards=(limit,))


def publish(engine: PostgresEngine, *batch: Message) -> None:
    answers = engine.run(engine.broker.publish(batch, 10))
    assert all(isinstance(answer, Accepted) for answer in answers), answers


def limit_of(delivery: Delivery) -> Limit:
    assert delivery.message is not None
    [limit] = delivery.message.guards
    assert isinstance(limit, Limit)
    return limit


def take(engine: PostgresEngine, limit: int = 100, wait: float = 0.0) -> list[Delivery]:
    demand = Demand((QUEUE,), limit, "w" * 32, wait=wait)
    return list(engine.run(engine.broker.step([], demand)).deliveries)


def test_the_server_decides_as_the_pure_module_does(engine: PostgresEngine, url: str) -> None:
    for seed in range(6):
        dice = random.Random(seed)
        limit = Limit(f"k{seed}", dice.choice([0.5, 3.0, 250.0]), dice.choice([1.0, 4.5]), dice.choice([None, 3]))
        costs = [dice.choice([1.0, 1.0, 0.25, 7.0]) for _ in range(20)] if seed % 3 else [1.0] * 20
        batch = [message(replace(limit, cost=cost)) for cost in costs]
        for number in dice.sample(range(20), k=seed * 3):
            batch[number].expires, costs[number] = BEGUN - 1, 0.0
        publish(engine, *batch)
        sql(url, functools.partial(decide, limit, costs, dice))


async def decide(limit: Limit, costs: list[float], dice: random.Random, connection: Any) -> None:
    """Hand out all, at times of our own, and compare each decision."""
    lane, limiter = await connection.fetchrow(
        "SELECT lane.id, limiter FROM lane, limiter WHERE limiter.id = limiter AND name = $1", limit.key
    )
    fit = "SELECT fits, opens, m, nr, line FROM fit($1, $2::integer, $2::bigint << 45, $3, $4)"
    take = "SELECT array_agg(id) FROM (SELECT id FROM task WHERE pos >> 45 = $1 ORDER BY pos LIMIT $2) x"
    wanted, now, waiting = Limiter(limit.rate, limit.burst, limit.concurrency), BEGUN, list(costs)
    while waiting:
        most = min(dice.randint(1, 5), len(waiting))
        admission = limiting.admit(wanted, waiting[:most], 0, now)
        async with connection.transaction():
            fits, opens, *found = await connection.fetchrow(fit, limiter, lane, most, now)
            assert fits == admission.count
            if fits:
                ids = await connection.fetchval(take, lane, fits)
                await connection.execute("SELECT pay($1, $2, $3, $4, $5)", *found, ids, now)
                await connection.execute("DELETE FROM task WHERE id = ANY ($1)", ids)
        if not fits and admission.again is not None:
            assert opens == pytest.approx(admission.again, abs=1e-5)
        wanted, waiting = admission.after, waiting[fits:]
        assert await connection.fetchval(LINE, limiter) == pytest.approx(wanted.full, abs=1e-5)
        now += dice.choice([0.0, 0.001, 0.04, 0.3, 2.0, 20.0])


@pytest.mark.parametrize(
    "newer", [Limit("k", 8.0, 2.0), Limit("k", 2.0), Limit("k", 0.1, 2.0), Limit("k"), Limit("k", concurrency=2)]
)
def test_newer_parameters_renew_the_line_as_the_pure_module_does(
    engine: PostgresEngine, url: str, newer: Limit
) -> None:
    publish(engine, *(message(Limit("k", 2.0, cost=30.0)) for _ in range(2)))
    assert len(take(engine)) == 1

    async def line(connection: Any) -> Limiter:
        return Limiter(*await connection.fetchrow("SELECT rate, burst, concurrency, line FROM limiter, meter"))

    before = sql(url, line)
    publish(engine, message(newer))
    after = sql(url, line)
    wanted = limiting.renewed(before, newer, before.full - 15.0)
    assert replace(after, full=0.0) == replace(wanted, full=0.0)
    assert after.full == pytest.approx(wanted.full, abs=1.0)


def test_what_another_claim_looks_at_is_left_alone_until_that_ends(engine: PostgresEngine, url: str) -> None:
    publish(engine, message(Limit("k", 100.0)), Message(1, "t", b"free", queue=QUEUE))

    async def hold(connection: Any) -> list[list[Delivery]]:
        loop = asyncio.get_running_loop()
        async with connection.transaction():
            await connection.execute("SELECT FROM limiter FOR UPDATE")
            free = await loop.run_in_executor(None, take, engine)
            waiting = loop.run_in_executor(None, take, engine, 100, 10.0)
            await asyncio.sleep(0.1)
            assert not waiting.done()
        return [free, await waiting]

    free, late = sql(url, hold)
    assert [one.message.body for one in free if one.message] == [b"free"]
    assert len(late) == 1


def test_many_claims_at_once_never_lease_too_many(engine: PostgresEngine, url: str) -> None:
    """Of two keys in two queues, in the opposite order for half of the workers: they do not wait for each other."""
    a, b = Limit("a", concurrency=3), Limit("b", concurrency=2)
    batch = [Message(1, "t", b"", queue=queue, guards=(one,)) for one in (a, b) for queue in ("x", "y")]
    publish(engine, *batch * 25)
    lock, leased, most, done = threading.Lock(), {"a": 0, "b": 0}, {"a": 0, "b": 0}, [0]

    def work(number: int) -> None:
        mine = open_engine(url)
        demand = Demand(("x", "y") if number % 2 else ("y", "x"), 4, f"{number:032x}", wait=0.5)
        held: list[tuple[Receipt, str]] = []
        while done[0] < 100 or held:
            with lock:  # before the step, in which they end
                for _, key in held:
                    leased[key] -= 1
            settle = [Settlement(receipt, ACK) for receipt, _ in held]
            deliveries = mine.run(mine.broker.step(settle, demand)).deliveries
            held = [(one.receipt, limit_of(one).key) for one in deliveries]
            with lock:
                for _, key in held:
                    leased[key] += 1
                    most[key] = max(most[key], leased[key])
                done[0] += len(held)
        mine.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [100]
    assert most["a"] <= 3 and most["b"] <= 2


def test_limits_that_nobody_uses_are_forgotten_with_their_lanes(engine: PostgresEngine, url: str) -> None:
    one, other = Limit("one", 1000.0), Limit("other", 1000.0)
    publish(engine, message(one), message(other))
    for delivery in take(engine):
        if limit_of(delivery) == one:
            engine.run(engine.broker.step([Settlement(delivery.receipt, ACK)], None))

    async def age(connection: Any) -> list[str]:
        await connection.execute("UPDATE limiter SET used = 1; UPDATE meter SET line = 1")
        await connection.execute("SELECT expire(1000, 1000000)")
        return [row[0] for row in await connection.fetch("SELECT name FROM limiter JOIN lane ON limiter = limiter.id")]

    assert sql(url, age) == ["other"], "what is leased keeps its limit"
    publish(engine, message(one, 7))  # this process knew the lane
    assert [delivery.message.body for delivery in take(engine) if delivery.message] == [b"7"]


def test_a_schema_of_an_older_release_is_brought_up_to_date(postgres_url: str, url: str) -> None:
    from penstock.engines.postgres import migrating

    async def older(connection: Any) -> None:
        await connection.execute("CREATE SCHEMA limits")
        for number, text in migrating.steps():
            if number <= 5:
                await connection.execute(text.replace("penstock.", "limits."))
        await connection.execute(
            "INSERT INTO meta VALUES ('version', '5'), ('secret', 'sssssssssssssssssssssssssssssssss')"
        )
        queue, lane = await connection.fetchrow(f"SELECT queue, lane FROM route('', '{QUEUE}', 5, '', 10, 1000)")
        await connection.execute("INSERT INTO task VALUES ($1, $1, 0, '')", lane << 45 | 7)
        await connection.execute("INSERT INTO delta VALUES ($1, 1, 0, 1, 0)", queue)
        await connection.execute("INSERT INTO unique_key VALUES ('', 'k', 1, NULL, false)")
        await connection.execute("SELECT gather('join', 0, '1', 3), gather('join', 2, '3', 3)")

    sql(postgres_url, older)
    engine = open_engine(url, queues=[Queue(QUEUE)])
    assert isinstance(engine, PostgresEngine)
    publish(engine, message(Limit("k", 5.0)))
    assert len(take(engine)) == 2
    engine.close()

    async def gather(connection: Any) -> Any:
        return await connection.fetchval("SELECT gather('join', '{1}', ARRAY['2'::bytea], 3)")

    assert sql(url, gather) == [b"1", b"2", b"3"]
