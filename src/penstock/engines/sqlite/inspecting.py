"""Looking into queues, and what people do to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from penstock.broker import DeadLetter, Member, Peeked
from penstock.engines.sqlite.board import PLACES, mask
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.publishing import Wake
from penstock.engines.sqlite.store import Store
from penstock.errors import DecodeError
from penstock.message import Message, pack, unpack
from penstock.queue import Queue, QueueInfo
from penstock.retry import afresh

SHOWN = 7 << 20
"""Bytes of messages that one look shows, however many tasks were asked for."""
FIRST_READY = """
SELECT body FROM task WHERE id IN (
    SELECT (SELECT min(t.id) FROM task t WHERE t.id >= l.head AND t.id < l.tail) FROM lane l WHERE l.queue = ?1 AND
    l.eligible > 0 UNION ALL SELECT r.lo FROM returned r JOIN lane l ON l.id = r.lane WHERE l.queue = ?1
) LIMIT 1000
"""
MOST_DUE = 10_000
DUE = f"""
SELECT l.queue, count(*) FROM (SELECT id FROM task WHERE due <= ? ORDER BY due LIMIT {MOST_DUE}) t
JOIN lane l ON l.id = t.id >> 45 GROUP BY l.queue
"""
"""What has come due, and no worker has looked since: who starts workers by what is ready must know."""
PEEK = """
SELECT t.id, t.due, t.body,
    EXISTS (SELECT 1 FROM lease x WHERE t.id BETWEEN x.lo AND x.hi)
    AND NOT EXISTS (SELECT 1 FROM returned r WHERE t.id BETWEEN r.lo AND r.hi)
FROM lane l JOIN task t ON t.id >= l.id << 45 AND t.id < (l.id + 1) << 45
WHERE l.queue = ? ORDER BY l.priority DESC, t.id LIMIT ?
"""


class SqliteInspect:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        def work(wake: Wake) -> None:
            for queue in queues:
                number = self._store.catalog.queue(namespace, queue.name)
                self._store.counters.bound(number, queue.max_length, queue.max_bytes)
                self._db.execute("UPDATE queue SET overflow = ? WHERE id = ?", (queue.overflow, number))

        self._store.change(work)

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]:
        return self._db.read(lambda: self._read_queues(namespace))

    def _read_queues(self, namespace: str | None) -> list[QueueInfo]:
        rows = self._db.query(
            "SELECT s.id, s.name, s.namespace, s.max_length, s.max_bytes, s.depth, s.bytes, s.ready, s.leased,"
            " s.delayed, s.dead, s.enqueued, s.settled, s.paused, s.shed FROM queue_stats s"
            " WHERE ?1 IS NULL OR s.namespace = ?1 ORDER BY s.namespace, s.name",
            (namespace,),
        ).fetchall()
        due: dict[int, int] = dict(self._db.query(DUE, (self._store.now(),)).fetchall())
        return [self._queue_info(due.get(row[0], 0), *row) for row in rows]

    def _queue_info(self, due: int, queue: int, *fields: Any) -> QueueInfo:
        """One row of `queue_stats` as a value, with the age of the oldest ready task."""
        *counts, enqueued, settled, paused, shed = fields
        bounds, (depth, size, ready, _, delayed, dead) = counts[:4], counts[4:]
        # Ranges still count what was revoked or purged, until a claim passes it.
        delayed = max(0, delayed - due)
        ready = min(ready + due, depth - delayed)
        counts = [*bounds, depth, size, ready, depth - delayed - ready, delayed, dead]
        values = (*counts, self._oldest_age(queue), enqueued, settled, bool(paused), shed)
        return QueueInfo(*values)

    def _oldest_age(self, queue: int) -> float | None:
        sent = [
            message.ready_since
            for (body,) in self._db.query(FIRST_READY, (queue,))
            if (message := read(body)) and message.sent
        ]
        return max(0.0, self._store.now() - min(sent)) if sent else None

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]:
        def work() -> list[Peeked]:
            found = self._db.query(
                "SELECT id FROM queue WHERE namespace = ? AND name = ?", (namespace, queue)
            ).fetchone()
            if found is None:
                return []
            return [
                Peeked(
                    self._store.lookup.public_id(row),
                    "delayed" if due is not None else "leased" if leased else "ready",
                    read(body),
                    due,
                )
                for row, due, body, leased in _some(self._db.query(PEEK, (found[0], limit)), 2)
            ]

        return self._db.read(work)

    async def purge(self, queue: str, namespace: str = "") -> int:
        total = 0
        while gone := self.purge_some(queue, namespace):
            total += gone
        return total

    def purge_some(self, queue: str, namespace: str = "") -> int:
        """One transaction's worth of `purge`; 0 when it is done."""

        def work(wake: Wake) -> int:
            found = self._store.catalog.known_queue(namespace, queue)
            count = 0 if found is None else self._store.revoker.purge(found)
            wake.results = count > 0
            return count

        return self._store.change(work)

    async def pause(self, queue: str, namespace: str = "") -> bool:
        def work(wake: Wake) -> bool:
            return self._set_paused(self._store.catalog.queue(namespace, queue), True)

        return self._store.change(work)

    async def resume(self, queue: str, namespace: str = "") -> bool:
        def work(wake: Wake) -> bool:
            found = self._store.catalog.known_queue(namespace, queue)
            if found is None or not self._set_paused(found, False):
                return False
            wake.queues, wake.tasks = mask([found]), PLACES
            return True

        return self._store.change(work)

    def _set_paused(self, queue: int, paused: bool) -> bool:
        """Whether that changed it."""
        self._store.catalog.pausing(queue)
        self._db.execute("UPDATE queue SET paused = ?1 WHERE id = ?2 AND paused <> ?1", (paused, queue))
        return bool(self._db.changes())

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]:
        def work() -> list[DeadLetter]:
            rows = self._db.query(
                "SELECT d.id, q.name, d.reason, d.died, d.attempts, d.body FROM dead d JOIN queue q ON q.id = d.queue"
                " WHERE q.namespace = ?1 AND (?2 IS NULL OR q.name = ?2) ORDER BY d.died DESC LIMIT ?3",
                (namespace, queue, limit),
            )
            return [
                DeadLetter(self._store.lookup.public_id(row), name, reason, died, read(body, attempts), body)
                for row, name, reason, died, attempts, body in _some(rows, 5)
            ]

        return self._db.read(work)

    async def retry_dead(self, ids: Sequence[str]) -> int:
        rows = self._rows(ids)
        return self._store.change(lambda wake: sum(self._retry(row, wake) for row in rows))

    def _retry(self, row: int, wake: Wake) -> int:
        found = self._db.execute("SELECT queue, body FROM dead WHERE id = ?", (row,)).fetchone()
        if found is None:
            return 0
        queue, body = found
        message = read(body)
        if message is not None:
            body = pack(afresh(message))
        self._db.execute("DELETE FROM dead WHERE id = ?", (row,))
        self._store.results.forget(row)
        self._db.execute("INSERT INTO task VALUES (?, NULL, 0, ?)", (row, body))
        self._store.counters.add(queue, 1, len(body))
        # What was shed may be among what is new still, where claims find it.
        self._db.execute(
            "UPDATE lane SET holes = max(0, holes - 1) WHERE id = ?1 AND head <= ?2 AND ?2 < tail", (lane_of(row), row)
        )
        if self._db.changes():
            wake.queues |= mask([queue])
        else:
            wake.queues |= self._store.readier.put_back([row])
        wake.tasks += 1
        return 1

    async def drop_dead(self, ids: Sequence[str]) -> int:
        rows = self._rows(ids)

        def work(wake: Wake) -> int:
            gone = 0
            for row in rows:
                self._db.execute("DELETE FROM dead WHERE id = ?", (row,))
                gone += self._db.changes()
            return gone

        return self._store.change(work)

    async def members(self) -> Sequence[Member]:
        return ()

    def _rows(self, ids: Sequence[str]) -> list[int]:
        found = self._db.read(lambda: [self._store.lookup.row(one) for one in ids])
        return [row for row in found if row is not None]


def _some(rows: Any, body: int) -> Iterator[tuple[Any, ...]]:
    """The first rows of a cursor, up to `SHOWN` bytes of their bodies; one at least."""
    size = 0
    for row in rows:
        before, size = size, size + len(row[body])
        if before and size > SHOWN:
            rows.close()  # a statement that is not at its end would keep its snapshot
            return
        yield row


def read(body: bytes, attempts: int = 0) -> Message | None:
    """The message, with the engine's count of its attempts, or `None` where it cannot be read."""
    try:
        message = unpack(body)
    except DecodeError:
        return None
    message.attempts = max(message.attempts, attempts)
    return message
