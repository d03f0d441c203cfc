"""What is known of a task: its outcome, else where it is. Never on the way of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.broker import Key
from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.naming import BUCKET
from penstock.engines.postgres.outcomes import Stored, find
from penstock.errors import DecodeError
from penstock.message import unpack
from penstock.outcome import Progress, Report, State
from penstock.public_ids import PublicIds

DEAD, LEASED = "dead", "leased"


class Lookup:
    def __init__(self, schema: str, ids: PublicIds) -> None:
        self._ids = ids
        self._names = f"SELECT name, id FROM {schema}.alias WHERE name = ANY ($1)"
        self._results = (
            "SELECT r.bucket, r.mask, r.worker, r.body, r.at, pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text"
            f" FROM pg_current_snapshot() s LEFT JOIN {schema}.result r ON r.bucket = ANY ($1) ORDER BY r.nr"
        )
        # One statement, so that a task on its way from one place to another is seen in one of them.
        self._places = (
            f"SELECT 'ready' AS place, id, attempts, body, '' AS worker FROM {schema}.task"
            " WHERE pos = ANY ($1) AND id = pos"
            f" UNION ALL SELECT 'ready', id, attempts, body, '' FROM {schema}.task WHERE id = ANY ($1) AND id <> pos"
            f" UNION ALL SELECT 'delayed', id, attempts, body, '' FROM {schema}.delayed WHERE id = ANY ($1)"
            f" UNION ALL SELECT '{DEAD}', id, attempts, body, '' FROM {schema}.dead WHERE id = ANY ($1)"
            f" UNION ALL SELECT '{LEASED}', u.i, u.a, u.b, l.worker FROM {schema}.lease l,"
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
        ended, _ = await self.ended(connection, known.values())
        living = await self._living(connection, [number for number in known.values() if number not in ended])
        # In none of the places any more, or dead: it may have ended between the two looks.
        missed = [one for one in known.values() if one not in ended and (one not in living or _dead(living[one]))]
        if missed:
            ended |= (await self.ended(connection, missed))[0]
        return [self._report(key, known.get(key), ended, living) for key in keys]

    async def ended(self, connection: Connection, numbers: Iterable[int]) -> tuple[dict[int, Stored], tuple[int, int]]:
        """The outcomes of those that have one, and the first transaction that ran at this look, with the first that had
        not begun."""
        buckets: dict[int, list[Any]] = {}
        wanted = set(numbers)
        rows = await connection.fetch(self._results, list({number >> BUCKET for number in wanted})) if wanted else []
        for row in rows:
            buckets.setdefault(row[0], []).append(row[:5])
        found = {number: find(buckets.get(number >> BUCKET, ()), number) for number in wanted}
        horizon = (int(rows[0][5]), int(rows[0][6])) if rows else (0, 0)
        return {number: stored for number, stored in found.items() if stored is not None}, horizon

    def told(self, key: Key, stored: Stored) -> Report:
        one = stored.outcome
        return Report(self._public(key), one.state, one, stored.task, stored.queue, one.retries, stored.worker)

    async def _living(self, connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[Any, Any]]:
        """Where each is that has not ended, and how far it has come."""
        if not numbers:
            return {}
        places = {row[1]: row for row in await connection.fetch(self._places, numbers)}
        leased = [number for number, row in places.items() if row[0] == LEASED]
        progress = {row[0]: row for row in await connection.fetch(self._progress, leased)} if leased else {}
        return {number: (row, progress.get(number)) for number, row in places.items()}

    def _report(
        self,
        key: Key,
        number: int | None,
        ended: Mapping[int, Stored],
        living: Mapping[int, tuple[Any, Any]],
    ) -> Report:
        if number is not None and number in ended:
            return self.told(key, ended[number])
        if number is None or number not in living:
            return Report(self._public(key), State.UNKNOWN)
        (place, _, attempts, body, worker), progress = living[number]
        try:
            message = unpack(body)
        except DecodeError:
            message = None
        retries = message.retries if message is not None else 0
        if place == DEAD:
            state = State.FAILURE
        elif place == LEASED:  # within `worker.watch.HELD` it runs, or is handed back
            state = State.STARTED
        else:
            state = State.RETRY if retries or attempts else State.PENDING
        so_far = Progress(progress[1], progress[2], progress[3]) if progress is not None else None
        task, queue = (message.task, message.queue) if message is not None else (None, None)
        return Report(self._public(key), state, None, task, queue, retries, worker or None, so_far)

    def _public(self, key: Key) -> str:
        return key if isinstance(key, str) else self._ids.make(key)


def _dead(found: tuple[Any, Any]) -> bool:
    row, _ = found
    return bool(row[0] == DEAD)
