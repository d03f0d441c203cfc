"""Queues and lanes, by name: looked up inside write transactions, cached per process."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import MAX_LANE, PARKED, lane_base
from penstock.errors import BrokerError
from penstock.message import Message
from penstock.queue import MAX_BYTES, MAX_LENGTH, Queue


class Lane(Struct, frozen=True):
    """What never changes of a lane."""

    id: int
    queue: int
    queue_name: str
    namespace: str
    priority: int
    partition: str
    limited: bool = False
    """Its tasks have a limit: of the key that the lane's row says, since a lane may be given to another."""


class Catalog:
    """Everything here runs inside a write transaction. Caches are dropped when one is rolled back."""

    def __init__(self, db: Database, counters: Counters, declared: Sequence[Queue] = ()) -> None:
        self._db = db
        self._counters = counters
        self._declared = {queue.name: queue for queue in declared}
        self._queues: dict[tuple[str, str], int] = {}
        self._lanes: dict[tuple[int, int, str], Lane] = {}
        self._by_id: dict[int, Lane] = {}
        self._paused: dict[int, bool] = {}
        db.rolled_back = self._forget

    def _forget(self) -> None:
        self._queues.clear()
        self._lanes.clear()
        self._by_id.clear()
        self._paused.clear()

    def queue(self, namespace: str, name: str) -> int:
        """The queue's id; it is created with its declared (or the default) bounds if need be."""
        found = self._queues.get((namespace, name))
        if found is None:
            found = self._find_queue(namespace, name)
            found = self._create_queue(namespace, name) if found is None else self._declare(found, name)
            self._queues[namespace, name] = found
        return found

    def _declare(self, queue: int, name: str) -> int:
        """It is there, and gets the bounds that this process declares, unless its workers set them."""
        declared = self._declared.get(name)
        if declared is not None:
            if not declared.governed:
                self._counters.bound(queue, declared.max_length, declared.max_bytes)
            self._db.execute(
                "UPDATE queue SET overflow = ?1 WHERE id = ?2 AND overflow <> ?1", (declared.overflow, queue)
            )
        return queue

    def is_paused(self, queue: int) -> bool:
        """Remembered where nobody else can change it."""
        found = self._paused.get(queue)
        if found is None:
            found = bool(self._db.execute("SELECT paused FROM queue WHERE id = ?", (queue,)).fetchone()[0])
            if self._db.sole:
                self._paused[queue] = found
        return found

    def pausing(self, queue: int) -> None:
        """It is paused, or resumed."""
        self._paused.pop(queue, None)

    def known_queue(self, namespace: str, name: str) -> int | None:
        """The queue's id if it exists."""
        return self._queues.get((namespace, name)) or self._find_queue(namespace, name)

    def _find_queue(self, namespace: str, name: str) -> int | None:
        row = self._db.execute("SELECT id FROM queue WHERE namespace = ? AND name = ?", (namespace, name)).fetchone()
        return row[0] if row else None

    def _create_queue(self, namespace: str, name: str) -> int:
        bounds = self._declared.get(name)
        length, size = (bounds.max_length, bounds.max_bytes) if bounds else (MAX_LENGTH, MAX_BYTES)
        created: int = self._db.execute(
            "INSERT INTO queue (namespace, name, overflow) VALUES (?, ?, ?) RETURNING id",
            (namespace, name, bounds.overflow if bounds else "reject"),
        ).fetchone()[0]
        self._counters.create(created, length, size)
        return created

    def lane(self, queue: int, namespace: str, name: str, priority: int, partition: str) -> Lane:
        """The lane for tasks without a limit; it is created if need be."""
        found = self._lanes.get((queue, priority, partition))
        if found is None:
            row = self._db.execute(
                "SELECT id FROM lane WHERE queue = ? AND priority = ? AND partition = ? AND limiter = 0",
                (queue, priority, partition),
            ).fetchone()
            lane = row[0] if row else self._create_lane(queue, priority, partition, 0)
            found = Lane(lane, queue, name, namespace, priority, partition)
            self._lanes[queue, priority, partition] = self._by_id[lane] = found
        return found

    def limited_lane(self, queue: int, message: Message, limiter: int) -> Lane:
        """The lane for a message of this limiter: one that it has, or one that a forgotten limiter had, or a new one.
        A lane stays of the same queue, priority and partition, and goes on counting."""
        place = (queue, message.priority, message.partition)
        find = "SELECT id FROM lane WHERE queue = ? AND priority = ? AND partition = ? AND limiter = ? LIMIT 1"
        row = self._db.execute(find, (*place, limiter)).fetchone()
        if row is None:
            row = self._db.execute(find, (*place, -1)).fetchone()
            if row is None:
                row = (self._create_lane(*place, limiter),)
            else:
                self._db.execute("UPDATE lane SET limiter = ? WHERE id = ?", (limiter, row[0]))
        return self.by_id(row[0])

    def _create_lane(self, queue: int, priority: int, partition: str, limiter: int) -> int:
        """A new lane. Lanes are never removed, so that ids never repeat."""
        execute = self._db.execute
        lane: int = execute("SELECT max(coalesce(max(id), 0), 0) + 1 FROM lane").fetchone()[0]
        if lane > MAX_LANE:
            raise BrokerError(
                f"more than {MAX_LANE:,} lanes (queue × priority × partition × limit) exist: use fewer partitions"
            )
        base = lane_base(lane)
        execute(
            "INSERT INTO lane (id, queue, priority, partition, head, tail, parked, limiter)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (lane, queue, priority, partition, base, base, base + PARKED, limiter),
        )
        return lane

    def by_id(self, lane: int) -> Lane:
        """The lane of a row id, which is known to exist."""
        found = self.find(lane)
        if found is None:
            raise LookupError(f"there is no lane {lane}")
        return found

    def find(self, lane: int) -> Lane | None:
        """The lane of that number, if there is one."""
        found = self._by_id.get(lane)
        if found is None:
            row = self._db.execute(
                "SELECT l.queue, q.name, q.namespace, l.priority, l.partition, l.limiter <> 0 FROM lane l"
                " JOIN queue q ON q.id = l.queue WHERE l.id = ? AND l.id > 0",
                (lane,),
            ).fetchone()
            if row is None:
                return None
            queue, name, namespace, priority, partition, limited = row
            found = self._by_id[lane] = Lane(lane, queue, name, namespace, priority, partition, bool(limited))
        return found
