"""The coordinator of the PostgreSQL engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from penstock.broker import Key
from penstock.coordinator import Revoked, WorkerInfo
from penstock.engines.postgres.connecting import Connection

if TYPE_CHECKING:
    from penstock.engines.postgres.engine import PostgresEngine

EXPIRING = 5.0
"""Seconds from one expiry of old rows to the next."""
WORKER_TTL = 60.0
"""Seconds that a worker is listed which joined and never renewed."""
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(WorkerInfo).decode


class PostgresCoordinator:
    def __init__(self, engine: PostgresEngine, schema: str) -> None:
        self._engine = engine
        self._schema = schema
        self._expiring = 0.0

    async def revoke(self, keys: Sequence[Key], terminate: bool = False) -> Sequence[Revoked]:
        core, schema = self._engine.core, self._schema

        async def one(connection: Connection, key: Key) -> Revoked:
            number = (await core.lookup.numbers(connection, [key])).get(key)
            if number is None:
                sql = f"INSERT INTO {schema}.revoked_name VALUES ($1, {schema}.now()) ON CONFLICT DO NOTHING"
                await connection.execute(sql, key)
                return Revoked.REMEMBERED
            # What is claimed at this moment is seen as leased then: removing waits for the claim.
            if await connection.fetchval(f"SELECT {schema}.remove(ARRAY[$1::bigint])", number):
                return Revoked.REMOVED
            sql = (
                f"INSERT INTO {schema}.revoked SELECT $1::bigint, $2, {schema}.now() FROM {schema}.lease"
                " WHERE $1 = ANY (ids) LIMIT 1 ON CONFLICT (id) DO UPDATE"
                f" SET terminate = {schema}.revoked.terminate OR excluded.terminate RETURNING id"
            )
            return Revoked.RUNNING if await connection.fetchval(sql, number, terminate) else Revoked.ENDED

        async def work(connection: Connection) -> list[Revoked]:
            return [await one(connection, key) for key in keys]

        return await core.change(work)

    async def join(self, worker: WorkerInfo) -> None:
        core, schema = self._engine.core, self._schema
        core.starts.join(worker.id, worker.slots)
        sql = (
            f"INSERT INTO {schema}.worker VALUES ($1, $2, {schema}.now(), {schema}.now() + $3)"
            " ON CONFLICT (id) DO UPDATE SET info = excluded.info, seen = excluded.seen, until = excluded.until"
        )
        await core.call(lambda c: c.execute(sql, worker.id, _encode(worker), WORKER_TTL))

    async def renew(self, workers: Sequence[str], lease: float) -> None:
        core, schema = self._engine.core, self._schema
        sql = (
            f"WITH w AS (UPDATE {schema}.worker SET seen = {schema}.now(), until = {schema}.now() + $2"
            " WHERE id = ANY ($1))"
            f" UPDATE {schema}.lease SET until = {schema}.now() + $2 WHERE worker = ANY ($1)"
        )
        await core.call(lambda c: c.execute(sql, list(workers), lease))

    async def leave(self, worker: str) -> None:
        await self._give_back(worker, [])
        self._engine.core.starts.remove(worker)

    async def bury(self, worker: str) -> int:
        core = self._engine.core
        started = [receipt[1] for receipt in core.starts.started(worker)]
        back = await self._give_back(worker, started)
        core.starts.remove(worker)
        return back

    async def _give_back(self, worker: str, charged: Sequence[int]) -> int:
        core, schema = self._engine.core, self._schema

        async def work(connection: Connection) -> int:
            await connection.execute(f"DELETE FROM {schema}.worker WHERE id = $1", worker)
            back: int = await connection.fetchval(
                f"SELECT {schema}.give_back(ARRAY(SELECT token FROM {schema}.lease WHERE worker = $1), $2, false)",
                worker,
                charged,
            )
            return back

        return await core.change(work)

    async def reap(self) -> int:
        core, schema = self._engine.core, self._schema
        buried = 0
        for worker in core.starts.dead():
            buried += await self.bury(worker)
        due = time.monotonic() >= self._expiring
        if due:
            self._expiring = time.monotonic() + EXPIRING

        async def work(connection: Connection) -> int:
            moved, tokens, workers = await connection.fetchrow(f"SELECT moved, tokens, workers FROM {schema}.reap()")
            if tokens:
                charged = [receipt[1] for worker in set(workers) for receipt in core.starts.started(worker)]
                moved += await connection.fetchval(f"SELECT {schema}.give_back($1, $2, true)", tokens, charged)
            if due:
                bounds = core.settings.result_expires, core.settings.result_max_bytes
                await connection.execute(f"SELECT {schema}.expire($1, $2), {schema}.drop_dead()", *bounds)
            return int(moved)

        return buried + await core.call(work)

    async def workers(self) -> Sequence[WorkerInfo]:
        core, schema = self._engine.core, self._schema
        rows = await core.call(
            lambda c: c.fetch(f"SELECT info, seen FROM {schema}.worker WHERE until > {schema}.now() ORDER BY seen")
        )
        return [replace(_decode(info), seen=seen) for info, seen in rows]

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        core, schema = self._engine.core, self._schema
        sql = (
            f"INSERT INTO {schema}.leader AS l VALUES ($1, $2, nextval('{schema}.ticket'), {schema}.now() + $3)"
            " ON CONFLICT (name) DO UPDATE SET holder = $2, until = excluded.until, token ="
            f" CASE WHEN l.until > {schema}.now() THEN l.token ELSE excluded.token END"
            f" WHERE l.holder = $2 OR l.until <= {schema}.now() RETURNING token"
        )
        token: int | None = await core.call(lambda c: c.fetchval(sql, name, holder, ttl))
        return token

    async def resign(self, name: str, holder: str) -> None:
        core, schema = self._engine.core, self._schema
        sql = f"UPDATE {schema}.leader SET until = 0 WHERE name = $1 AND holder = $2"
        await core.call(lambda c: c.execute(sql, name, holder))

    async def get(self, key: str) -> tuple[bytes, int] | None:
        core, schema = self._engine.core, self._schema
        row = await core.call(lambda c: c.fetchrow(f"SELECT value, version FROM {schema}.state WHERE key = $1", key))
        return (row[0], row[1]) if row is not None else None

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        core, schema = self._engine.core, self._schema
        sql = f"SELECT {schema}.put($1, $2, $3)"
        version: int | None = await core.call(lambda c: c.fetchval(sql, key, value, if_version), repeat=False)
        return version
