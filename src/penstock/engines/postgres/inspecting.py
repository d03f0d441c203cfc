"""What consoles see of, and do to, the queues of the PostgreSQL engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.broker import DeadLetter, Member, Peeked
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.keeping import forget_outcomes
from penstock.engines.postgres.naming import SHIFT
from penstock.engines.postgres.outcomes import reason_of
from penstock.errors import DecodeError
from penstock.message import Message, pack, unpack
from penstock.queue import Queue, QueueInfo
from penstock.retry import afresh

if TYPE_CHECKING:
    from penstock.engines.postgres.engine import PostgresEngine

PURGE_AT_ONCE = 2_000

QUEUES = """
SELECT q.name, q.namespace, q.max_length, q.max_bytes, q.count + coalesce(d.count, 0), q.bytes + coalesce(d.bytes, 0),
    coalesce(l.leased, 0), coalesce(w.delayed, 0), coalesce(x.dead, 0),
    q.enqueued + coalesce(d.enqueued, 0), q.settled + coalesce(d.settled, 0), q.paused, f.body, {s}.now(),
    q.shed + coalesce(d.shed, 0)
FROM {s}.queue q
LEFT JOIN (SELECT queue, sum(count)::bigint AS count, sum(bytes)::bigint AS bytes, sum(enqueued)::bigint AS enqueued,
    sum(settled)::bigint AS settled, sum(shed)::bigint AS shed FROM {s}.delta GROUP BY queue) d ON d.queue = q.id
LEFT JOIN (SELECT n.queue, sum(e.count)::bigint AS leased FROM {s}.lease e JOIN {s}.lane n ON n.id = e.lane
    GROUP BY n.queue) l ON l.queue = q.id
LEFT JOIN (SELECT n.queue, count(*) AS delayed FROM {s}.delayed e JOIN {s}.lane n ON n.id = e.lane
    WHERE e.due > {s}.now() GROUP BY n.queue) w ON w.queue = q.id
LEFT JOIN (SELECT n.queue, count(*) AS dead FROM {s}.dead e JOIN {s}.lane n ON n.id = e.lane
    GROUP BY n.queue) x ON x.queue = q.id
LEFT JOIN LATERAL (SELECT t.body FROM {s}.lane n CROSS JOIN LATERAL (SELECT t.body, t.pos FROM {s}.task t
    WHERE t.pos >= n.id::bigint << 45 AND t.pos < (n.id + 1)::bigint << 45 ORDER BY t.pos LIMIT 1) t
    WHERE n.queue = q.id ORDER BY t.pos & ((1::bigint << 45) - 1) LIMIT 1) f ON true
WHERE q.id > 0 AND ($1::text IS NULL OR q.namespace = $1) ORDER BY q.namespace, q.name
"""

PEEK = """
SELECT state, id, body, due, attempts FROM (
    (SELECT 0 AS rank, 'ready' AS state, t.id, t.body, NULL::double precision AS due, t.attempts,
        -n.priority AS first, t.pos AS later FROM {s}.lane n CROSS JOIN LATERAL (SELECT * FROM {s}.task t
        WHERE t.pos >= n.id::bigint << 45 AND t.pos < (n.id + 1)::bigint << 45 ORDER BY t.pos LIMIT $2) t
        WHERE n.queue = $1)
    UNION ALL
    (SELECT 1, 'delayed', t.id, t.body, t.due, t.attempts, 0, t.id FROM {s}.delayed t JOIN {s}.lane n ON n.id = t.lane
        WHERE n.queue = $1 ORDER BY t.due LIMIT $2)
    UNION ALL
    (SELECT 2, 'leased', u.i, u.b, NULL, u.a, 0, u.i FROM {s}.lease e JOIN {s}.lane n ON n.id = e.lane,
        unnest(e.ids, e.attempts, e.bodies) u (i, a, b) WHERE n.queue = $1 AND u.i <> 0 LIMIT $2)
) a ORDER BY rank, first, due, later LIMIT $2
"""


class PostgresInspect:
    def __init__(self, engine: PostgresEngine, schema: str) -> None:
        self._engine = engine
        self._schema = schema
        self._queue = f"SELECT id FROM {schema}.queue WHERE namespace = $1 AND name = $2 AND id > 0"
        self._pause = f"UPDATE {schema}.queue SET paused = $2 WHERE id = $1 AND paused <> $2 RETURNING true"

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        sql = (
            f"INSERT INTO {self._schema}.queue (namespace, name, max_length, max_bytes, opened, overflow)"
            f" VALUES ($1, $2, $3, $4, {self._schema}.now(), $5)"
            " ON CONFLICT (namespace, name) DO UPDATE SET max_length = $3, max_bytes = $4, overflow = $5"
            " WHERE (queue.max_length, queue.max_bytes, queue.overflow) IS DISTINCT FROM ($3, $4, $5)"
        )

        async def work(connection: Connection) -> None:
            # Apps say it again at every start: that need not wait for a standby.
            await connection.execute("SET LOCAL synchronous_commit = local")
            await connection.executemany(sql, rows)

        rows = [(namespace, queue.name, queue.max_length, queue.max_bytes, queue.overflow) for queue in queues]
        if rows:
            await self._engine.core.change(work)

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]:
        rows = await self._engine.core.read(lambda c: c.fetch(QUEUES.format(s=self._schema), namespace))
        return [_info(row) for row in rows]

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]:
        async def work(connection: Connection) -> list[Any]:
            number = await connection.fetchval(self._queue, namespace, queue)
            return await connection.fetch(PEEK.format(s=self._schema), number, limit) if number is not None else []

        rows = await self._engine.core.read(work)
        return [Peeked(self._public(number, body), state, _read(body)[0], due) for state, number, body, due, _ in rows]

    async def purge(self, queue: str, namespace: str = "") -> int:
        schema = self._schema
        some = (
            f"(SELECT t.id FROM {schema}.lane n, {schema}.task t WHERE n.queue = $1"
            " AND t.pos >= n.id::bigint << 45 AND t.pos < (n.id + 1)::bigint << 45 LIMIT $2) UNION ALL"
            f" (SELECT t.id FROM {schema}.delayed t JOIN {schema}.lane n ON n.id = t.lane WHERE n.queue = $1 LIMIT $2)"
        )

        async def work(connection: Connection) -> int:
            number = await connection.fetchval(self._queue, namespace, queue)
            if number is None:
                return 0
            ids = [row[0] for row in await connection.fetch(some, number, PURGE_AT_ONCE)]
            gone: int = await connection.fetchval(f"SELECT {schema}.remove($1)", ids) if ids else 0
            return gone

        purged = 0
        while gone := await self._engine.core.change(work):
            purged += gone
        return purged

    async def pause(self, queue: str, namespace: str = "") -> bool:
        core = self._engine.core
        [number] = await core.call(lambda c: core.lanes.make(c, namespace, [queue]))
        return bool(await core.change(lambda c: c.fetchval(self._pause, number, True)))

    async def resume(self, queue: str, namespace: str = "") -> bool:
        core = self._engine.core

        async def work(connection: Connection) -> bool:
            found = await core.lanes.queues(connection, namespace, [queue])
            if not found or not await connection.fetchval(self._pause, found[0], False):
                return False
            await connection.execute(f"SELECT {self._schema}.ring($1, 64)", found[0])
            return True

        return await core.change(work)

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]:
        sql = (
            f"SELECT d.id, q.name, d.reason, d.mark, d.died, d.attempts, d.body FROM {self._schema}.dead d"
            f" JOIN {self._schema}.lane n ON n.id = d.lane JOIN {self._schema}.queue q ON q.id = n.queue"
            " WHERE q.namespace = $1 AND ($2::text IS NULL OR q.name = $2) ORDER BY d.died, d.id LIMIT $3"
        )
        rows = await self._engine.core.read(lambda c: c.fetch(sql, namespace, queue, limit))
        return [self._letter(row) for row in rows]

    async def retry_dead(self, ids: Sequence[str]) -> int:
        core, schema = self._engine.core, self._schema
        take = f"DELETE FROM {schema}.dead WHERE id = ANY ($1) RETURNING id, lane, body"
        queue_of = f"SELECT queue FROM {schema}.lane WHERE id = $1"

        async def work(connection: Connection) -> int:
            known = await core.lookup.numbers(connection, ids)
            rows = await connection.fetch(take, list(known.values()))
            if not rows:
                return 0
            await forget_outcomes(connection, schema, [row[0] for row in rows])
            for number, lane, body in rows:
                message, _ = _read(body)
                fresh = body if message is None else pack(afresh(message))
                [place] = await core.numbers.take(connection, 1)
                await connection.execute(
                    f"INSERT INTO {schema}.task VALUES ($1, $2, 0, $3)", lane << SHIFT | place, number, fresh
                )
                queue = await connection.fetchval(queue_of, lane)
                await connection.execute(f"INSERT INTO {schema}.delta VALUES ($1, 1, $2, 1, 0)", queue, len(fresh))
                await connection.execute(f"SELECT {schema}.ring($1, 1)", queue)
            return len(rows)

        return await core.change(work)

    async def drop_dead(self, ids: Sequence[str]) -> int:
        core = self._engine.core

        async def work(connection: Connection) -> int:
            known = await core.lookup.numbers(connection, ids)
            sql = f"DELETE FROM {self._schema}.dead WHERE id = ANY ($1) RETURNING id"
            return len(await connection.fetch(sql, list(known.values())))

        return await core.change(work)

    async def members(self) -> Sequence[Member]:
        sql = (
            "SELECT coalesce(host(client_addr), 'local') || ' ' || application_name, sync_state,"
            " extract(epoch FROM replay_lag)::float8, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint, state"
            " FROM pg_stat_replication ORDER BY 1"
        )

        async def work(connection: Connection) -> tuple[str, list[Any]]:
            host, port = connection.get_settings() and connection._addr
            return f"{host}:{port}", await connection.fetch(sql)

        leader, rows = await self._engine.core.call(work)
        if not rows and len(self._engine.settings.address.hosts) == 1:
            return ()
        replicas = [
            Member(
                address,
                "replica",
                alive=state == "streaming",
                in_sync=None if sync is None else sync in ("sync", "quorum"),
                lag=0.0 if lag is None and behind == 0 else lag,
                lag_bytes=behind,
                note=state or "this user may not see more: GRANT pg_monitor",
            )
            for address, sync, lag, behind, state in rows
        ]
        return [Member(leader, "leader", in_sync=True, lag=0.0, lag_bytes=0), *replicas]

    def _public(self, number: int, body: bytes) -> str:
        message, _ = _read(body)
        return message.id if message is not None and message.id else self._engine.core.ids.make(number)

    def _letter(self, row: Any) -> DeadLetter:
        number, queue, reason, mark, died, attempts, body = row
        message, _ = _read(body)
        public = self._public(number, body)
        if message is not None:
            message.id = public
            message.attempts = attempts or message.attempts
        why = reason if mark is None else reason_of(mark, queue)
        return DeadLetter(public, queue, why, died, message, body if message is None else b"")


def _info(row: Any) -> QueueInfo:
    name, namespace, length, size, depth, used, leased, delayed, dead, enqueued, settled, paused, first, now, shed = row
    since = 0.0
    if first is not None:
        message, _ = _read(first)
        since = message.ready_since if message is not None else 0.0
    return QueueInfo(
        name, namespace, length, size,
        depth=depth, bytes=used, ready=max(0, depth - leased - delayed), leased=leased, delayed=delayed, dead=dead,
        oldest_age=max(0.0, now - since) if since else None, enqueued=enqueued, settled=settled, paused=paused,
        shed=shed,
    )  # fmt: skip


def _read(body: bytes) -> tuple[Message | None, str | None]:
    try:
        return unpack(body), None
    except DecodeError as error:
        return None, str(error)
