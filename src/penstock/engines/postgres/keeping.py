"""The result backend of the PostgreSQL engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from penstock.backend import Lost, Notify, Subscription
from penstock.broker import Key
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.naming import BUCKET
from penstock.engines.postgres.outcomes import find, pack_outcomes, without
from penstock.engines.postgres.watching import Watcher
from penstock.outcome import Outcome, Progress, Report

if TYPE_CHECKING:
    from penstock.engines.postgres.engine import PostgresEngine


class PostgresBackend:
    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        core = self._engine.core
        schema = core.settings.schema
        strangers = (
            f"INSERT INTO {schema}.alias SELECT n, nextval('{schema}.block'), {schema}.now()"
            " FROM unnest($1::text[]) n ON CONFLICT DO NOTHING"
        )
        look = f"SELECT bucket, mask, worker, body, at FROM {schema}.result WHERE bucket = ANY ($1) ORDER BY nr"

        async def work(connection: Connection) -> list[bool]:
            keys = {key for key, _ in outcomes}
            known = await core.lookup.numbers(connection, keys)
            names = [key for key in keys if key not in known]
            if names:  # the tasks are on another server: here they get a number of their own, in lane 0
                await connection.execute(strangers, names)
                known.update(await core.lookup.numbers(connection, names))
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
                packed = pack_outcomes((number, "", one) for number, one in fresh.items())
                await connection.execute(f"SELECT {schema}.store($1, $2, $3, '')", *packed)
            return first

        return await core.change(work, repeat=False)

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


async def forget_outcomes(connection: Connection, schema: str, numbers: Iterable[int]) -> None:
    """Take the outcomes of these numbers out of their rows. Runs in a transaction."""
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
