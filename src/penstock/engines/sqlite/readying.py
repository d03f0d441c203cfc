"""Making tasks ready again, inside a write transaction: those that came back, and those that are due."""

from __future__ import annotations

from collections.abc import Callable

from penstock.engines.sqlite.catalog import Catalog, Lane
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of, runs
from penstock.engines.sqlite.limiters import Limiters

PROMOTE_AT_ONCE = 500
"""Due tasks made ready in one transaction, and limiters that open again."""
DUE = (
    "SELECT 0, id FROM (SELECT id FROM task WHERE due <= ?1 ORDER BY due LIMIT ?2)"
    " UNION ALL SELECT 1, id FROM (SELECT id FROM limiter WHERE again <= ?1 ORDER BY again LIMIT ?2)"
)
NEXT_DUE = (
    "SELECT min(due) FROM (SELECT min(due) AS due FROM task WHERE due IS NOT NULL UNION ALL"
    " SELECT again FROM (SELECT again FROM limiter WHERE again IS NOT NULL AND queues & ? ORDER BY again LIMIT 1))"
)
"""When the next delayed task is due, or a limiter opens again that has tasks in one of these queues."""
ANY_QUEUE = -1


class Readier:
    def __init__(
        self, db: Database, catalog: Catalog, counters: Counters, limiters: Limiters, now: Callable[[], float]
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._limiters = limiters
        self._now = now
        self._alone = db.sole
        self._expected = 0.0
        """Nothing is due before then, where nobody else writes."""

    def put_back_in(self, lane: Lane, rows: list[int], fresh: int = 0) -> None:
        """Make `rows` (ascending, not due, not leased) ready again, in this order, before what is new. `fresh` is 1 for
        those that nobody had yet."""
        if not rows:
            return
        for low, high in runs(rows):
            self._db.execute(
                "INSERT INTO returned (lane, lo, hi, fresh) VALUES (?, ?, ?, ?)", (lane.id, low, high, fresh)
            )
        if lane.limited:
            self._db.execute("UPDATE lane SET back = back + ? WHERE id = ?", (len(rows), lane.id))
            self._limiters.ready(lane.id)
        else:
            self._db.execute("UPDATE lane SET back = back + ?, eligible = 1 WHERE id = ?", (len(rows), lane.id))

    def put_back(self, rows: list[int], fresh: int = 0) -> int:
        """The same for rows of several lanes; returns the bit set of queues that have work now."""
        by_lane: dict[int, list[int]] = {}
        for row in rows:
            by_lane.setdefault(lane_of(row), []).append(row)
        queues = 0
        for number, mine in by_lane.items():
            lane = self._catalog.by_id(number)
            self.put_back_in(lane, mine, fresh)
            queues |= 1 << (lane.queue & 63)
        return queues

    def expect(self, due: float) -> None:
        """A task is due then, or a limiter opens."""
        self._expected = min(self._expected, due)

    def promote(self) -> int:
        """Make due tasks ready, and open limiters whose time has come; returns the bit set of their queues."""
        if self._alone and self._expected > self._now():
            return 0
        found = self._db.execute(DUE, (self._now(), PROMOTE_AT_ONCE)).fetchall()
        if not found:
            if self._alone:
                self._expected = self.next_due() or float("inf")
            return 0
        queues = self._undelay([number for is_limiter, number in found if not is_limiter])
        for is_limiter, number in found:
            if is_limiter:
                queues |= self._limiters.open(number)
        return queues

    def _undelay(self, due: list[int]) -> int:
        self._db.executemany("UPDATE task SET due = NULL WHERE id = ?", [(row,) for row in due])
        by_queue: dict[int, int] = {}
        for row in due:
            queue = self._catalog.by_id(lane_of(row)).queue
            by_queue[queue] = by_queue.get(queue, 0) + 1
        for queue, count in by_queue.items():
            self._counters.delay(queue, -count)
        return self.put_back(due, fresh=1)

    def next_due(self) -> float | None:
        """When the next delayed task is due, or a limiter opens (Unix time)."""
        row = self._db.execute(NEXT_DUE, (ANY_QUEUE,)).fetchone()
        due: float | None = row[0]
        return due
