"""What is known of a task: its outcome, else where it is. Never on the way of a task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from penstock.broker import Key
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.naming import BUCKET, PublicIds
from penstock.engines.postgres.outcomes import find
from penstock.errors import DecodeError
from penstock.message import unpack
from penstock.outcome import Progress, Report, State


class Lookup:
    def __init__(self, schema: str, ids: PublicIds) -> None:
        self._ids = ids
        self._names = f"SELECT name, id FROM {schema}.alias WHERE name = ANY ($1)"
        self._results = (
            f"SELECT bucket, mask, worker, body, at FROM {schema}.result WHERE bucket = ANY ($1) ORDER BY nr"
        )
        # One statement, so that a task on its way from one place to another is seen in one of them.
        self._places = (
            f"SELECT 'ready' AS place, id, attempts, body, '' AS worker FROM {schema}.task"
            " WHERE pos = ANY ($1) AND id = pos"
            f" UNION ALL SELECT 'ready', id, attempts, body, '' FROM {schema}.task WHERE id = ANY ($1) AND id <> pos"
            f" UNION ALL SELECT 'delayed', id, attempts, body, '' FROM {schema}.delayed WHERE id = ANY ($1)"
            f" UNION ALL SELECT 'dead', id, attempts, body, '' FROM {schema}.dead WHERE id = ANY ($1)"
            f" UNION ALL SELECT 'leased', u.i, u.a, u.b, l.worker FROM {schema}.lease l,"
            " unnest(l.ids, l.attempts, l.bodies) u (i, a, b) WHERE l.ids && $1 AND u.i = ANY ($1)"
        )
        self._progress = f"SELECT id, done, total, note FROM {schema}.progress WHERE id = ANY ($1)"

    async def numbers(self, connection: Connection, keys: Iterable[Key]) -> dict[Key, int]:
        """The numbers of those keys that are known."""
        found: dict[Key, int] = {}
        names: list[str] = []
        for key in keys:
            number = key if isinstance(key, int) else self._ids.number(key)
            if number is not None:
                found[key] = number
            else:
                names.append(str(key))
        if names:
            found.update({row[0]: row[1] for row in await connection.fetch(self._names, names)})
        return found

    async def reports(self, connection: Connection, keys: Sequence[Key]) -> list[Report]:
        known = await self.numbers(connection, set(keys))
        reports = await self.ended(connection, known)
        left = {key: number for key, number in known.items() if key not in reports}
        if left:
            reports.update(await self._living(connection, left))
            # What ended between the two looks.
            reports.update(
                await self.ended(
                    connection, {k: n for k, n in left.items() if k not in reports or not reports[k].state.terminal}
                )
            )
        return [reports.get(key) or Report(self._public(key), State.UNKNOWN) for key in keys]

    async def ended(self, connection: Connection, known: dict[Key, int]) -> dict[Key, Report]:
        """Reports of those that have an outcome."""
        if not known:
            return {}
        buckets: dict[int, list[Any]] = {}
        for row in await connection.fetch(self._results, list({number >> BUCKET for number in known.values()})):
            buckets.setdefault(row[0], []).append(row)
        reports: dict[Key, Report] = {}
        for key, number in known.items():
            stored = find(buckets.get(number >> BUCKET, ()), number)
            if stored is not None:
                one = stored.outcome
                reports[key] = Report(self._public(key), one.state, one, stored.task, None, one.retries, stored.worker)
        return reports

    async def _living(self, connection: Connection, known: dict[Key, int]) -> dict[Key, Report]:
        numbers = list(known.values())
        places = {row[1]: row for row in await connection.fetch(self._places, numbers)}
        leased = [number for number, row in places.items() if row[0] == "leased"]
        progress = {row[0]: row for row in await connection.fetch(self._progress, leased)} if leased else {}
        return {
            key: self._report(key, places[number], progress.get(number))
            for key, number in known.items()
            if number in places
        }

    def _report(self, key: Key, row: Any, progress: Any) -> Report:
        place, _, attempts, body, worker = row
        try:
            message = unpack(body)
        except DecodeError:
            message = None
        retries = message.retries if message is not None else 0
        if place == "dead":
            state = State.FAILURE
        elif progress is not None:
            state = State.STARTED
        else:
            state = State.RETRY if retries or attempts else State.PENDING
        so_far = Progress(progress[1], progress[2], progress[3]) if progress is not None else None
        task, queue = (message.task, message.queue) if message is not None else (None, None)
        return Report(self._public(key), state, None, task, queue, retries, worker or None, so_far)

    def _public(self, key: Key) -> str:
        return key if isinstance(key, str) else self._ids.make(key)
