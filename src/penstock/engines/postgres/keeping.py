"""The result backend of the PostgreSQL engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from penstock.backend import Lost, Notify, Subscription, check_parts
from penstock.broker import Key
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.hearing import Ear
from penstock.engines.postgres.naming import BUCKET
from penstock.engines.postgres.outcomes import find, pack_outcomes, without
from penstock.engines.postgres.watching import Watcher
from penstock.outcome import MOST_PART_BYTES, MOST_PARTS, Outcome, Part, Parts, Progress, Report

if TYPE_CHECKING:
    from penstock.engines.postgres.engine import PostgresEngine


class PostgresBackend:
    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        core = self._engine.core
        schema = core.settings.schema
        look = f"SELECT bucket, mask, worker, body, at FROM {schema}.result WHERE bucket = ANY ($1) ORDER BY nr"

        async def work(connection: Connection) -> list[bool]:
            known = await self._numbers(connection, {key for key, _ in outcomes})
            buckets = sorted({number >> BUCKET for number in known.values()})
            for bucket in buckets:
                await connection.execute("SELECT pg_advisory_xact_lock(7364, hashint8($1))", bucket)
            rows = await connection.fetch(look, buckets)
            first: list[bool] = []
            fresh: dict[int, Outcome] = {}
            for key, outcome in outcomes:
                number = known[key]
                first.append(number not in fresh and find(rows, number) is None)
                if first[-1]:
                    fresh[number] = outcome
            if fresh:
                packed = pack_outcomes((number, one.task, one) for number, one in fresh.items())
                await connection.execute(f"SELECT {schema}.store($1, $2, $3, '')", *packed)
            return first

        return await core.change(work, repeat=False)

    async def _numbers(self, connection: Connection, keys: Iterable[Key]) -> dict[Key, int]:
        """The numbers of all. Tasks that are on another server get one here, in lane 0."""
        core = self._engine.core
        known = await core.lookup.numbers(connection, keys)
        names = [key for key in keys if key not in known]
        if names:
            schema = core.settings.schema
            await connection.execute(
                f"INSERT INTO {schema}.alias SELECT n, nextval('{schema}.block'), {schema}.now()"
                " FROM unnest($1::text[]) n ON CONFLICT DO NOTHING",
                names,
            )
            known.update(await core.lookup.numbers(connection, names))
        return known

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        if not keys:
            return []
        core = self._engine.core
        if not core.settings.replica:
            return await core.call(lambda c: core.lookup.reports(c, keys))
        # What has ended stays as it is: a replica may tell it. Whatever it does not know is asked of the primary.
        reports = await core.read(lambda c: core.lookup.reports(c, keys))
        left = [key for key, report in zip(keys, reports, strict=True) if not report.state.terminal]
        if not left:
            return reports
        fresh = iter(await core.call(lambda c: core.lookup.reports(c, left)))
        return [report if report.state.terminal else next(fresh) for report in reports]

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        watching = self._engine.live().watching
        watcher = Watcher(watching, keys, notify)
        watching.soon(watcher)
        return watcher

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        return None

    async def forget(self, keys: Sequence[Key]) -> None:
        core = self._engine.core

        async def work(connection: Connection) -> None:
            known = await core.lookup.numbers(connection, keys)
            await forget_outcomes(connection, core.settings.schema, known.values())

        await core.change(work)

    async def note(self, key: Key, progress: Progress) -> None:
        core = self._engine.core
        schema = core.settings.schema
        sql = (
            f"INSERT INTO {schema}.progress VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE"
            " SET done = excluded.done, total = excluded.total, note = excluded.note"
        )

        async def work(connection: Connection) -> None:
            for number in (await core.lookup.numbers(connection, [key])).values():
                await connection.execute(sql, number, progress.done, progress.total, progress.note)

        await core.call(work)

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        check_parts(values)
        core = self._engine.core
        sql = f"SELECT {core.settings.schema}.append($1, $2, $3, $4, $5, {MOST_PARTS}, {MOST_PART_BYTES})"
        columns = [value for value, _ in values], [content_type for _, content_type in values]

        async def work(connection: Connection) -> bool:
            [number] = (await self._numbers(connection, [key])).values()
            added: bool = await connection.fetchval(sql, number, run, mark, *columns)
            return added

        return await core.call(work)

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        core = self._engine.core
        schema = core.settings.schema
        # One statement, so that no part is missing of a task that is seen to have ended.
        sql = (
            f"SELECT s.first, s.next, {schema}.is_over($1), p.index, p.run, p.value, p.content_type"
            f" FROM (SELECT) one LEFT JOIN {schema}.stream s ON s.id = $1"
            f" LEFT JOIN LATERAL (SELECT * FROM {schema}.part p WHERE p.id = $1 AND p.index < s.next"
            " AND p.index >= CASE WHEN $2 < 0 THEN s.next + $2 ELSE $2 END ORDER BY p.index LIMIT $3) p ON true"
            " ORDER BY p.index"
        )

        async def work(connection: Connection) -> Parts:
            number = (await core.lookup.numbers(connection, [key])).get(key)
            if number is None:
                return Parts(0, 0, (), ended=True)
            rows = await connection.fetch(sql, number, offset, limit)
            found = [Part(*row[3:]) for row in rows if row[3] is not None]
            return Parts(rows[0][0] or 0, rows[0][1] or 0, found, rows[0][2])

        return await core.call(work)

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        hearing = self._engine.live().hearing
        ear = Ear(hearing, key, notify)
        hearing.soon(ear)
        return ear


async def forget_outcomes(connection: Connection, schema: str, numbers: Collection[int]) -> None:
    """Take the outcomes of these numbers out of their rows, and drop their parts. Runs in a transaction."""
    await connection.execute(f"SELECT {schema}.drop_parts($1)", list(numbers))
    for number in numbers:
        rows = await connection.fetch(
            f"SELECT nr, mask, body FROM {schema}.result WHERE bucket = $1 ORDER BY nr FOR UPDATE", number >> BUCKET
        )
        for nr, mask, body in rows:
            if not mask >> (number & 63) & 1:
                continue
            mask, body = without(mask, body, number)
            if mask:
                await connection.execute(
                    f"UPDATE {schema}.result SET mask = $2, body = $3 WHERE nr = $1", nr, mask, body
                )
            else:
                await connection.execute(f"DELETE FROM {schema}.result WHERE nr = $1", nr)
