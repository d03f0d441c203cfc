"""Claiming, inside a write transaction: contiguous ranges of ready tasks, one lease row each."""

from __future__ import annotations

from collections.abc import Callable

from penstock.broker import Demand
from penstock.delivery import Delivery
from penstock.engines.sqlite.catalog import Catalog, Lane
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of, runs
from penstock.engines.sqlite.leases import Held
from penstock.errors import DecodeError
from penstock.message import Message, Unique, unpack

NEXT_LANES = "SELECT id, priority, head, tail, back FROM lane WHERE queue = ? AND eligible = 1 ORDER BY priority DESC, turn LIMIT 2"
ROWS = "SELECT id, attempts, body FROM task WHERE id BETWEEN ? AND ? AND due IS NULL"
LEASE = "INSERT INTO lease (lo, hi, worker, until) VALUES (?, ?, ?, ?) RETURNING token"
PROMOTE_AT_ONCE = 500
"""Due tasks made ready in one transaction."""


class Claimer:
    def __init__(self, db: Database, catalog: Catalog, now: Callable[[], float]) -> None:
        self._db = db
        self._catalog = catalog
        self._now = now

    def claim(self, demand: Demand, drop_revoked: Callable[[int, int], set[int]]) -> tuple[list[Delivery], list[Held]]:
        """Up to `demand.limit` deliveries, from the first of its queues that has any, then the next."""
        self.promote()
        deliveries: list[Delivery] = []
        leases: list[Held] = []
        room = demand.max_bytes
        for name in demand.queues:
            queue = self._catalog.known_queue(demand.namespace, name)
            if queue is None or self._paused(queue):
                continue
            while len(deliveries) < demand.limit and room > 0:
                lanes = self._db.execute(NEXT_LANES, (queue,)).fetchall()
                if not lanes:
                    break
                held = self._claim_lane(lanes, demand, demand.limit - len(deliveries), room, deliveries, drop_revoked)
                if held is not None:
                    leases.append(held)
                    room -= sum(size for _, size in held.tasks.values()) + held.cut
        return deliveries, leases

    def _paused(self, queue: int) -> bool:
        row = self._db.execute("SELECT paused FROM queue WHERE id = ?", (queue,)).fetchone()
        return bool(row[0])

    def _claim_lane(
        self,
        lanes: list[tuple[int, int, int, int, int]],
        demand: Demand,
        limit: int,
        room: int,
        deliveries: list[Delivery],
        drop_revoked: Callable[[int, int], set[int]],
    ) -> Held | None:
        number, priority, head, tail, back = lanes[0]
        lane = self._catalog.by_id(number)
        low, high, returned = self._next_range(number, head, tail, back, limit)
        if returned and drop_revoked(low, high):
            self._settle_lane(number, head, back - returned, tail)
            self._put_back(lane, [row for row, _, _ in self._db.execute(ROWS, (low, high))])
            return None
        until = self._now() + demand.lease
        token: int = self._db.execute(LEASE, (low, high, demand.worker, until)).fetchone()[0]
        tasks = self._deliver(token, low, high, room, deliveries)
        if not tasks:
            self._db.execute("DELETE FROM lease WHERE token = ?", (token,))
            if not returned:
                high = self._before_next(high, tail)
        last = next(reversed(tasks), high)
        cut = last < high
        if cut:  # by the byte limit
            self._db.execute("UPDATE lease SET hi = ? WHERE token = ?", (last, token))
            if returned:
                self._db.execute("INSERT INTO returned (lane, lo, hi) VALUES (?, ?, ?)", (number, last + 1, high))
                returned = last - low + 1
        rotate = len(lanes) > 1 and lanes[1][1] == priority
        if returned:
            self._settle_lane(number, head, back - returned, tail, rotate)
        else:
            self._settle_lane(number, last + 1, back, tail, rotate)
        return Held(token, lane, tasks, demand.worker, room if cut else 0) if tasks else None

    def _before_next(self, high: int, tail: int) -> int:
        """The end of a gap that revoked or purged tasks left behind `high`."""
        row = self._db.execute(
            "SELECT id FROM task WHERE id > ? AND id < ? AND due IS NULL LIMIT 1", (high, tail)
        ).fetchone()
        return (row[0] if row else tail) - 1

    def _next_range(self, lane: int, head: int, tail: int, back: int, limit: int) -> tuple[int, int, int]:
        """(first, last, how many came from `returned`): what came back goes before what is new."""
        if not back:
            return head, min(tail, head + limit) - 1, 0
        n, low, high = self._db.execute(
            "SELECT n, lo, hi FROM returned WHERE lane = ? ORDER BY n LIMIT 1", (lane,)
        ).fetchone()
        if high - low >= limit:
            self._db.execute("UPDATE returned SET lo = ? WHERE n = ?", (low + limit, n))
            high = low + limit - 1
        else:
            self._db.execute("DELETE FROM returned WHERE n = ?", (n,))
        return low, high, high - low + 1

    def _deliver(
        self, token: int, low: int, high: int, room: int, deliveries: list[Delivery]
    ) -> dict[int, tuple[str, int]]:
        tasks: dict[int, tuple[str, int]] = {}
        append = deliveries.append
        for row, attempts, body in self._db.execute(ROWS, (low, high)):
            size = len(body)
            room -= size
            if room < 0 and tasks:
                break
            try:
                message = unpack(body)
            except DecodeError as error:
                append(Delivery((token, row), row, None, str(error), body, attempts))
                tasks[row] = ("", size)
                continue
            if attempts:
                message.attempts = attempts
            if message.guards:
                self._start_guards(message, row)
            append(Delivery((token, row), message.id or row, message))
            tasks[row] = (message.task, size)
        return tasks

    def _start_guards(self, message: Message, row: int) -> None:
        for guard in message.guards:
            if isinstance(guard, Unique) and guard.until == "start":
                self._db.execute("DELETE FROM unique_key WHERE name = ? AND id = ?", (guard.key, row))

    def _settle_lane(self, lane: int, head: int, back: int, tail: int, rotate: bool = False) -> None:
        if head == tail and not back:
            self._db.execute("UPDATE lane SET head = ?, back = ?, eligible = 0 WHERE id = ?", (head, back, lane))
        elif rotate:
            self._db.execute(
                "UPDATE lane SET head = ?, back = ?, turn = (SELECT value FROM meta WHERE name = 'turn') WHERE id = ?",
                (head, back, lane),
            )
            self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'turn'")
        else:
            self._db.execute("UPDATE lane SET head = ?, back = ? WHERE id = ?", (head, back, lane))

    def _put_back(self, lane: Lane, rows: list[int]) -> None:
        """Make `rows` (ascending, not due, not leased) ready again, in this order, before what is new."""
        if not rows:
            return
        for low, high in runs(rows):
            self._db.execute("INSERT INTO returned (lane, lo, hi) VALUES (?, ?, ?)", (lane.id, low, high))
        self._db.execute("UPDATE lane SET back = back + ?, eligible = 1 WHERE id = ?", (len(rows), lane.id))

    def put_back(self, rows: list[int]) -> int:
        """The same for rows of several lanes; returns the bit set of queues that have work now."""
        by_lane: dict[int, list[int]] = {}
        for row in rows:
            by_lane.setdefault(lane_of(row), []).append(row)
        queues = 0
        for number, mine in by_lane.items():
            lane = self._catalog.by_id(number)
            self._put_back(lane, mine)
            queues |= 1 << (lane.queue & 63)
        return queues

    def promote(self) -> int:
        """Make due tasks ready; returns the bit set of their queues."""
        due = [
            row
            for (row,) in self._db.execute(
                "SELECT id FROM task WHERE due <= ? ORDER BY due LIMIT ?", (self._now(), PROMOTE_AT_ONCE)
            )
        ]
        if not due:
            return 0
        self._db.executemany("UPDATE task SET due = NULL WHERE id = ?", [(row,) for row in due])
        by_queue: dict[int, int] = {}
        for row in due:
            queue = self._catalog.by_id(lane_of(row)).queue
            by_queue[queue] = by_queue.get(queue, 0) + 1
        for queue, count in by_queue.items():
            self._db.execute("UPDATE queue SET delayed = delayed - ? WHERE id = ?", (count, queue))
        return self.put_back(due)

    def next_due(self) -> float | None:
        """When the next delayed task is due (Unix time)."""
        row = self._db.execute("SELECT min(due) FROM task WHERE due IS NOT NULL").fetchone()
        due: float | None = row[0]
        return due
