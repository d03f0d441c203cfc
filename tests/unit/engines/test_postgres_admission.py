"""Who gets into a full queue of PostgreSQL: who is refused waits for nobody and writes nothing, calls that share a
statement are admitted each by itself, and nobody passes the bound by a look that is old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from penstock.broker import Accepted, Demand, Full
from penstock.engines.postgres import migrating, open_engine
from penstock.engines.postgres.connecting import PLANNING
from penstock.engines.postgres.engine import PostgresEngine
from penstock.message import Dedup, Guard, Message, Unique, pack
from penstock.queue import Queue

QUEUE, SCHEMA = "narrow", "admission"
ROWS = "SELECT n, kind, depth, bound, unit, excess FROM publish($1, $2, $3, $4, $5, NULL, $6, NULL, $7, $8)"


@pytest.fixture(scope="module")
def url(postgres_url: str) -> Iterator[str]:
    """A server with a schema of our own."""

    async def make() -> None:
        connection = await asyncpg.connect(postgres_url, server_settings={"search_path": SCHEMA})
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        for _, text in migrating.steps():
            await connection.execute(text.replace("penstock.", f"{SCHEMA}."))
        await connection.close()

    asyncio.run(make())
    yield postgres_url
    asyncio.run(drop(postgres_url, SCHEMA))


async def drop(url: str, schema: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f"DROP SCHEMA {schema} CASCADE")
    await connection.close()


def run(url: str, work: Callable[[Callable[[], Awaitable[Any]]], Awaitable[None]]) -> None:
    """`work` gets a function that connects to the schema; there are no queues in it yet."""
    opened: list[Any] = []

    async def connect() -> Any:
        opened.append(await asyncpg.connect(url, server_settings={**PLANNING, "search_path": SCHEMA}))
        return opened[-1]

    async def whole() -> None:
        first = await connect()
        await first.execute(
            "TRUNCATE task, delta, sent, alias, unique_key, dedup, lane; DELETE FROM queue WHERE id > 0"
        )
        try:
            await asyncio.wait_for(work(connect), 20)
        finally:
            for connection in opened:
                connection.terminate()

    asyncio.run(whole())


class Lane:
    """One of a queue with this bound; numbers its messages."""

    def __init__(self, connection: Any, queue: int, lane: int) -> None:
        self.connection, self.queue, self.lane = connection, queue, lane
        self.next = 1

    @classmethod
    async def make(cls, connection: Any, length: int, overflow: str = "reject", priority: int = 5) -> Lane:
        sql = "SELECT queue, lane FROM route('', $1, $2, '', $3, 1000000, NULL, $4)"
        return cls(connection, *await connection.fetchrow(sql, QUEUE, priority, length, overflow))

    async def publish(
        self,
        count: int = 1,
        calls: list[int] | None = None,
        *,
        bound: str = "exact",
        names: list[str] | None = None,
        guards: str | None = None,
        over: Any = None,
    ) -> list[tuple[Any, ...]]:
        numbers = [self.lane << 45 | self.next + n for n in range(count)]
        self.next += count
        values = [self.lane], numbers, [b"x"] * count, None, names, guards, bound, calls
        return [tuple(row) for row in await (over or self.connection).fetch(ROWS, *values)]

    async def waiting(self) -> list[int]:
        """Which of the numbers, in their order."""
        rows = await self.connection.fetch("SELECT pos & ((1::bigint << 45) - 1) FROM task ORDER BY pos")
        return [row[0] for row in rows]


def test_calls_that_share_a_statement_fit_each_by_itself(url: str) -> None:
    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        lane = await Lane.make(await connect(), 4)
        assert await lane.publish(2) == []
        # Of one, two and one messages: the second is too much, and the third fits.
        assert await lane.publish(4, [1, 2, 2, 3]) == [(-2, "full", 4, 4, "tasks", 2)]
        assert await lane.waiting() == [1, 2, 3, 6]
        known = [await lane.connection.fetchval("SELECT known($1, true)", lane.lane << 45 | n) for n in range(1, 7)]
        assert known == [True, True, True, False, False, True], "what was refused is taken for sent when it is repeated"
        assert await lane.publish(3, [1, 2, 3], bound="pressed") == [(-n, "full", 4, 4, "tasks", 1) for n in (1, 2, 3)]

    run(url, work)


def test_callers_of_one_process_share_a_statement(url: str) -> None:
    engine = open_engine(f"{url}?schema={SCHEMA}_engine", queues=[Queue(QUEUE, 5)])
    assert isinstance(engine, PostgresEngine)

    async def together() -> list[Any]:
        one = [Message(1, "t", b"[]", queue=QUEUE)]
        return [answer for [answer] in await asyncio.gather(*(engine.broker.publish(one, 10) for _ in range(12)))]

    async def transactions() -> list[int]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch(f"SELECT count(*) FROM {SCHEMA}_engine.task GROUP BY xmin::text ORDER BY 1")
        await connection.close()
        return [row[0] for row in rows]

    try:
        answers = engine.run(together())
        assert [type(answer) for answer in answers] == [Accepted] * 5 + [Full] * 7
        assert answers[-1].depth == 5
        assert asyncio.run(transactions()) == [5], "they came at once, and share a commit"
    finally:
        engine.close()
        asyncio.run(drop(url, f"{SCHEMA}_engine"))


@pytest.mark.parametrize("overflow", ["drop-oldest", "shed-lowest-priority"])
def test_calls_shed_together_or_one_by_one(url: str, overflow: str) -> None:
    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        connection = await connect()
        low, high = await Lane.make(connection, 3, overflow, 1), await Lane.make(connection, 3, overflow)
        await connection.execute(  # who can be read may go: here everything
            "CREATE OR REPLACE FUNCTION may_go(p_body bytea, OUT task bytea, OUT told boolean)"
            " LANGUAGE sql IMMUTABLE AS $$SELECT p_body, false$$"
        )
        assert await low.publish(3) == []
        high.next = 10
        assert await high.publish(2, [1, 2]) == [], "both were made room for"
        assert await high.waiting() == [3 if overflow == "drop-oldest" else 1, 10, 11]
        # There is no room for five at once. One by one the oldest gives way, or the lowest while there is one.
        answers = await high.publish(5, [1, 2, 3, 4, 5])
        if overflow == "drop-oldest":
            assert answers == []
            assert await high.waiting() == [14, 15, 16]
        else:
            assert answers == [(-n, "full", 3, 3, "tasks", 1) for n in (2, 3, 4, 5)]
            assert await high.waiting() == [10, 11, 12]

    run(url, work)


@pytest.mark.parametrize("bound", ["exact", "pressed"])
def test_who_is_refused_waits_for_no_lock(url: str, bound: str) -> None:
    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        lane, holder = await Lane.make(await connect(), 2), await connect()
        assert await lane.publish(2) == []
        async with holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock(7361, $1)", lane.queue)
            assert await lane.publish(bound=bound) == [(0, "full", 2, 2, "tasks", 1)]

    run(url, work)


def guard(one: Guard) -> str:
    match one:
        case Unique(key=key):
            return f'{{"1": [["unique", "", "{key}", 60, "end", "{one.on_conflict}"]]}}'
        case Dedup(key=key):
            return f'{{"1": [["dedup", "", "{key}", 60]]}}'
    raise AssertionError(one)


@pytest.mark.parametrize(
    "more",
    [{}, {"names": ["mine"]}, {"guards": guard(Unique("key"))}, {"guards": guard(Dedup("key", 60.0))}],
    ids=["plain", "chosen", "unique", "dedup"],
)
def test_who_is_refused_writes_nothing(url: str, more: dict[str, Any]) -> None:
    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        lane = await Lane.make(await connect(), 2)
        assert await lane.publish(2) == []
        async with lane.connection.transaction():
            [row] = await lane.publish(bound="pressed", **more)
            assert row[1:] == ("full", 2, 2, "tasks", 1)
            assert await lane.connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text") is None
        # A key that is taken, or a repeat, is told of before that.
        await lane.connection.execute("UPDATE queue SET max_length = 3 WHERE name = $1", QUEUE)
        assert await lane.publish(bound="pressed", **more) == []
        [row] = await lane.publish(bound="pressed", **more)
        kind = "full" if not more else "conflict" if '"unique"' in more.get("guards", "") else "duplicate"
        assert row[1] == kind

    run(url, work)


def test_what_needs_no_room_is_not_refused_early(url: str) -> None:
    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        lane = await Lane.make(await connect(), 1)
        replacing = guard(Unique("key", on_conflict="replace"))
        assert await lane.publish(guards=replacing, bound="pressed") == []
        assert await lane.publish(guards=replacing, bound="pressed") == [], "the first one has left for the second"
        assert await lane.waiting() == [2]
        await lane.connection.execute("INSERT INTO revoked_name VALUES ('gone', 0)")
        assert await lane.publish(names=["gone"], bound="pressed") == [], "it ends at once"

    run(url, work)


def test_far_from_the_bound_who_waits_shares_and_looks_again(url: str) -> None:
    """Somebody is alone: all who are far wait for his commit side by side, and see what he has let in."""

    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        lane, holder, watcher = await Lane.make(await connect(), 1000), await connect(), await connect()
        others = [await connect() for _ in range(3)]
        waits = (
            "SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND classid = 7361 AND objid = $1 AND NOT granted"
        )

        async def race(fill: int) -> list[list[tuple[Any, ...]]]:
            async with holder.transaction():
                await holder.execute("SELECT pg_advisory_xact_lock(7361, $1)", lane.queue)
                calls = [asyncio.ensure_future(lane.publish(over=other)) for other in others]
                while len(modes := await watcher.fetch(waits, lane.queue)) < len(others):
                    pass  # each look is a question to the server
                assert {row[0] for row in modes} == {"ShareLock"}
                await holder.execute("INSERT INTO delta VALUES ($1, $2, 0, $2, 0)", lane.queue, fill)
            return await asyncio.gather(*calls)

        assert await race(1) == [[], [], []]
        answers = await race(994)
        assert sorted(map(bool, answers)) == [False, False, True], "there was room for two"
        assert await lane.publish() == [(0, "full", 1000, 1000, "tasks", 1)]

    run(url, work)


def test_those_who_share_are_as_many_as_the_server_lets_in(url: str) -> None:
    async def work(connect: Callable[[], Awaitable[Any]]) -> None:
        connection = await connect()
        most = max(128, int(await connection.fetchval("SHOW max_connections")))
        lane = await Lane.make(connection, 10 * most)
        ask = "SELECT share($1, $2, 1, false)"
        assert [await connection.fetchval(ask, lane.queue, count) for count in (10, 11)] == [True, False]

    run(url, work)


def test_a_schema_of_the_release_before_is_brought_up_to_date(url: str) -> None:
    schema = f"{SCHEMA}_older"

    async def older() -> None:
        connection = await asyncpg.connect(url, server_settings={"search_path": schema})
        await connection.execute(f"CREATE SCHEMA {schema}")
        for number, text in migrating.steps():
            if number <= 12:
                await connection.execute(text.replace("penstock.", f"{schema}."))
        await connection.execute(
            "INSERT INTO meta VALUES ('version', '12'), ('secret', 'sssssssssssssssssssssssssssssssss')"
        )
        lane = await Lane.make(connection, 2)
        body = pack(Message(1, "t", b"older", queue=QUEUE))
        values = [lane.lane], [lane.lane << 45 | 1], [body]
        await connection.fetch("SELECT publish($1, $2, $3, NULL, NULL, NULL, NULL, NULL, 'exact')", *values)
        await connection.close()

    asyncio.run(older())
    engine = open_engine(f"{url}?schema={schema}")
    try:
        one = [Message(1, "t", b"newer", queue=QUEUE)]
        answers = [engine.run(engine.broker.publish(one, 10))[0] for _ in range(2)]
        assert [type(answer) for answer in answers] == [Accepted, Full]
        taken = engine.run(engine.broker.step([], Demand((QUEUE,), 5, "w" * 32))).deliveries
        assert [one.message and one.message.body for one in taken] == [b"older", b"newer"]
    finally:
        engine.close()
        asyncio.run(drop(url, schema))


class Deaf:
    """A connection that breaks before the answer to a publish comes, once."""

    def __init__(self, connection: Any, once: list[str]) -> None:
        self._connection, self._once = connection, once

    async def fetch(self, sql: str, *values: Any) -> Any:
        rows = await self._connection.fetch(sql, *values)
        if ".publish(" in sql and self._once:
            self._once.pop()
            raise ConnectionResetError("reset")
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_of_calls_whose_outcome_was_lost_those_that_were_refused_are_told_so(url: str) -> None:
    engine = open_engine(f"{url}?schema={SCHEMA}_lost", queues=[Queue(QUEUE, 3)])
    assert isinstance(engine, PostgresEngine)
    once, take = ["once"], engine.core.links.take

    async def deaf(deadline: Any) -> Any:
        return Deaf(await take(deadline), once)

    async def together() -> list[Any]:
        one = [Message(1, "t", b"[]", queue=QUEUE)]
        return [answer for [answer] in await asyncio.gather(*(engine.broker.publish(one, 10) for _ in range(5)))]

    try:
        engine.core.links.take = deaf  # type: ignore[method-assign]  # for this one engine
        answers = engine.run(together())
        assert not once
        assert [isinstance(answer, Full) for answer in answers] == [False, False, False, True, True]
        assert len({answer.key for answer in answers[:3]}) == 3
        assert engine.run(engine.broker.depth(QUEUE, "")) == 3
    finally:
        engine.close()
        asyncio.run(drop(url, f"{SCHEMA}_lost"))
