"""Making tasks ready again, inside a write transaction: those that came back, and those that are due."""

from __future__ import annotations

from collections.abc import Callable

from penstock.engines.sqlite.catalog import Catalog, Lane
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of, runs

PROMOTE_AT_ONCE = 500
"""Due tasks made ready in one transaction."""


class Readier:
    def __init__(self, db: Database, catalog: Catalog, counters: Counters, now: Callable[[], float]) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._now = now
        self._alone = db.sole
        self._expected = 0.0
        """No task is due before then, where nobody else writes."""

    def put_back_in(self, lane: Lane, rows: list[int]) -> None:
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
            self.put_back_in(lane, mine)
            queues |= 1 << (lane.queue & 63)
        return queues

    def expect(self, due: float) -> None:
        """A task is due then."""
        self._expected = min(self._expected, due)

    def promote(self) -> int:
        """Make due tasks ready; returns the bit set of their queues."""
        if self._alone and self._expected > self._now():
            return 0
        due = [
            row
            for (row,) in self._db.execute(
                "SELECT id FROM task WHERE due <= ? ORDER BY due LIMIT ?", (self._now(), PROMOTE_AT_ONCE)
            )
        ]
        if not due:
            if self._alone:
                self._expected = self.next_due() or float("inf")
            return 0
        self._db.executemany("UPDATE task SET due = NULL WHERE id = ?", [(row,) for row in due])
        by_queue: dict[int, int] = {}
        for row in due:
            queue = self._catalog.by_id(lane_of(row)).queue
            by_queue[queue] = by_queue.get(queue, 0) + 1
        for queue, count in by_queue.items():
            self._counters.delay(queue, -count)
        return self.put_back(due)

    def next_due(self) -> float | None:
        """When the next delayed task is due (Unix time)."""
        row = self._db.execute("SELECT min(due) FROM task WHERE due IS NOT NULL").fetchone()
        due: float | None = row[0]
        return due
