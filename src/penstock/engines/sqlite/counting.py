"""The counters of queues, inside write transactions: the only place that changes them.

A queue's counters are in the table of lanes, in the row with the negative of its id. So a publish, which moves a lane
and its queue, writes one page less, and pages are what a small commit costs (measured in docs/design.md, "One
publish").
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.engines.sqlite.database import Database

ADD = (
    "UPDATE lane SET depth = depth + ?1, bytes = bytes + ?2, enqueued = enqueued + ?1, delayed = delayed + ?4"
    " WHERE id = -?3"
)
ADMIT = ADD + " AND depth + ?1 <= max_length AND bytes + ?2 <= max_bytes"


class Levels(NamedTuple):
    depth: int
    bytes: int
    max_length: int
    max_bytes: int


class Counters:
    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, queue: int, max_length: int, max_bytes: int) -> None:
        self._db.execute(
            "INSERT INTO lane (id, queue, priority, partition, head, tail, parked, depth, bytes, delayed, enqueued,"
            " settled, max_length, max_bytes) VALUES (-?1, ?1, -1, '', 0, 0, 0, 0, 0, 0, 0, 0, ?2, ?3)",
            (queue, max_length, max_bytes),
        )

    def bound(self, queue: int, max_length: int, max_bytes: int) -> None:
        self._db.execute("UPDATE lane SET max_length = ?, max_bytes = ? WHERE id = -?", (max_length, max_bytes, queue))

    def admit(self, queue: int, count: int, size: int) -> bool:
        """Count new tasks in, unless they pass a bound."""
        self._db.hot(ADMIT, (count, size, queue, 0))
        return bool(self._db.changes())

    def add(self, queue: int, count: int, size: int, delayed: int = 0) -> None:
        """Count tasks in that are always admitted (or were)."""
        self._db.execute(ADD, (count, size, queue, delayed))

    def withdraw(self, queue: int, count: int, size: int) -> None:
        """Undo an `admit`."""
        self._db.execute(ADD, (-count, -size, queue, 0))

    def leave(self, queue: int, count: int, size: int, delayed: int = 0) -> None:
        """Count tasks out."""
        self._db.execute(
            "UPDATE lane SET depth = depth - ?1, bytes = bytes - ?2, settled = settled + ?1, delayed = delayed - ?4"
            " WHERE id = -?3",
            (count, size, queue, delayed),
        )

    def shed(self, queue: int, count: int, size: int) -> None:
        """Count tasks out that made room for others."""
        self._db.execute(
            "UPDATE lane SET depth = depth - ?1, bytes = bytes - ?2, settled = settled + ?1, shed = shed + ?1"
            " WHERE id = -?3",
            (count, size, queue),
        )

    def delay(self, queue: int, count: int, grown: int = 0) -> None:
        """`count` more (or less) of the queue's tasks are delayed; their messages have `grown` by so many bytes."""
        self._db.execute(
            "UPDATE lane SET delayed = delayed + ?, bytes = bytes + ? WHERE id = -?", (count, grown, queue)
        )

    def levels(self, queue: int) -> Levels:
        row = self._db.execute(
            "SELECT depth, bytes, max_length, max_bytes FROM lane WHERE id = -?", (queue,)
        ).fetchone()
        return Levels(*row)

    def worked_off(self, queue: int) -> int:
        """Tasks that left it, but for those that made room for others."""
        count: int = self._db.execute("SELECT settled - shed FROM lane WHERE id = -?", (queue,)).fetchone()[0]
        return count
