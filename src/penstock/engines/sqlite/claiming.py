"""Claiming: contiguous ranges of ready tasks, one lease row each, inside a write transaction; decoding after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

from penstock.broker import Demand
from penstock.delivery import Delivery
from penstock.engines.sqlite.catalog import Catalog, Lane
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import LANE_BITS, runs
from penstock.engines.sqlite.leases import Held
from penstock.engines.sqlite.limiters import Entrance, Limiters, Opening
from penstock.engines.sqlite.readying import Readier
from penstock.errors import DecodeError
from penstock.message import unpack

NEXT_LANES = (
    "SELECT id, priority, head, tail, back, claims FROM lane WHERE queue = ? AND eligible = 1"
    " ORDER BY priority DESC, turn LIMIT 2"
)
ROWS = "SELECT id, attempts, body FROM task WHERE id BETWEEN ? AND ? AND due IS NULL"
LEASE = "INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?)"

Row = tuple[int, int, bytes]
_body = itemgetter(2)


class Claimed(NamedTuple):
    """One lease just taken: its rows are not decoded yet. `let_go`: when their limit let them go (Unix time), if they
    have one."""

    token: int
    lane: Lane
    rows: list[Row]
    let_go: float | None = None


class NextRange(NamedTuple):
    """Row ids low..high of a lane; `returned`: they came back, or were delayed (`fresh` is 1 then), else they are
    new."""

    low: int
    high: int
    returned: bool
    fresh: int = 0


class Claimer:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        readier: Readier,
        limiters: Limiters,
        drop_revoked: Callable[[int, int], set[int]],
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._readier = readier
        self._limiters = limiters
        self._drop_revoked = drop_revoked
        self._now = now
        self._opening: Opening | None = None

    def take_opening(self) -> Opening | None:
        """When others may go of the limiters that claims have met since this was asked."""
        opening, self._opening = self._opening, None
        return opening

    def claim(self, demand: Demand) -> list[Claimed]:
        """Up to `demand.limit` tasks, from the first of its queues that has any, then the next."""
        self._readier.promote()
        claims: list[Claimed] = []
        limit, room = demand.limit, demand.max_bytes
        for name in demand.queues:
            queue = self._catalog.queue(demand.namespace, name)
            if self._catalog.is_paused(queue):
                continue
            while limit > 0:
                lanes = self._db.execute(NEXT_LANES, (queue,)).fetchall()
                if not lanes:
                    break
                claimed, size = self._claim_lane(lanes, demand, limit, room, first=not claims)
                if claimed is None and size > room:
                    return claims
                if claimed is not None:
                    claims.append(claimed)
                    limit -= len(claimed.rows)
                    room -= size
        return claims

    def _claim_lane(
        self, lanes: list[tuple[int, int, int, int, int, int]], demand: Demand, limit: int, room: int, *, first: bool
    ) -> tuple[Claimed | None, int]:
        """A lease on the lane's next range, and its bytes: more than `room` when nothing fitted any more."""
        number, priority, head, tail, back, claims = lanes[0]
        lane = self._catalog.by_id(number)
        entrance = self._limiters.enter(number, limit) if lane.limited else None
        if entrance is not None and not entrance.most:
            return None, 0
        taken = self._next_range(number, head, tail, back, limit if entrance is None else entrance.most)
        if taken.returned and self._drop_revoked(taken.low, taken.high):
            self._skip_revoked(lane, taken, head, tail, back)
            return None, 0
        if entrance is None:
            rows: list[Row] = self._db.execute(ROWS, (taken.low, taken.high)).fetchall()
        else:
            rows, taken = self._read_admitted(number, taken, entrance)
            if not rows and entrance.refused:
                self._leave(entrance, lane.queue, 0)
                return None, 0
        size = sum(map(len, map(_body, rows)))
        if size > room:
            rows, size = _fitting(rows, room, first)
            if not rows:
                self._give_back(number, taken, taken.low)
                return None, room + 1
            self._give_back(number, taken, rows[-1][0] + 1)
            taken = taken._replace(high=rows[-1][0])
        if not rows and not taken.returned:
            taken = taken._replace(high=self._before_next(taken.high, tail))
        passed = taken.high - taken.low + 1 - len(rows)
        if passed:
            self._db.execute("UPDATE lane SET holes = max(0, holes - ?) WHERE id = ?", (passed, number))
        rotate = entrance is not None or (len(lanes) > 1 and lanes[1][1] == priority)
        came_back = taken.high - taken.low + 1 if taken.returned else 0
        self._move_lane(number, head if taken.returned else taken.high + 1, back - came_back, tail, rotate=rotate)
        if entrance is not None:
            self._leave(entrance, lane.queue, len(rows))
        if not rows:
            return None, 0
        until = self._now() + demand.lease
        # Ranges overlap in one lane only, where a later claim has a higher token. No other page is written for it.
        token = (claims + 1) << LANE_BITS | number
        limiter, let_go = (None, None) if entrance is None else (entrance.id, entrance.now)
        self._db.execute(LEASE, (token, rows[0][0], rows[-1][0], demand.worker, until, limiter))
        return Claimed(token, lane, rows, let_go), size

    def _leave(self, entrance: Entrance, queue: int, count: int) -> None:
        found = self._limiters.leave(entrance, queue, count)
        if found is not None:
            self._readier.expect(found.at)
            known = self._opening or found
            self._opening = Opening(min(known.at, found.at), known.queues | found.queues)

    def _read_admitted(self, lane: int, taken: NextRange, entrance: Entrance) -> tuple[list[Row], NextRange]:
        """As much of the range as the limit lets go, row by row: what each costs is in its message. The rest of the
        range is left for the next claim."""
        rows: list[Row] = []
        read = self._db.execute(ROWS, (taken.low, taken.high))
        for row in read:
            if not entrance.admits(row[2]):
                read.close()
                low = rows[-1][0] + 1 if rows else taken.low
                self._give_back(lane, taken, low)
                return rows, taken._replace(high=low - 1)
            rows.append(row)
        return rows, taken

    def _next_range(self, lane: int, head: int, tail: int, back: int, limit: int) -> NextRange:
        """What came back goes before what is new."""
        if not back:
            return NextRange(head, min(tail, head + limit) - 1, False)
        n, low, high, fresh = self._db.execute(
            "SELECT n, lo, hi, fresh FROM returned WHERE lane = ? ORDER BY n LIMIT 1", (lane,)
        ).fetchone()
        if high - low >= limit:
            self._db.execute("UPDATE returned SET lo = ? WHERE n = ?", (low + limit, n))
            high = low + limit - 1
        else:
            self._db.execute("DELETE FROM returned WHERE n = ?", (n,))
        return NextRange(low, high, True, fresh)

    def _give_back(self, lane: int, taken: NextRange, low: int) -> None:
        """Leave the end of a returned range, from `low` on, for the next claim. New tasks just stay behind the head."""
        if taken.returned:
            self._insert_first(lane, low, taken.high, taken.fresh)

    def _insert_first(self, lane: int, low: int, high: int, fresh: int) -> None:
        n = self._db.execute("SELECT coalesce(min(n), 1) - 1 FROM returned").fetchone()[0]
        self._db.execute("INSERT INTO returned VALUES (?, ?, ?, ?, ?)", (n, lane, low, high, fresh))

    def _skip_revoked(self, lane: Lane, taken: NextRange, head: int, tail: int, back: int) -> None:
        """Some of a returned range was revoked and is gone: the rest becomes ranges of its own."""
        left = [row for row, _, _ in self._db.execute(ROWS, (taken.low, taken.high))]
        for low, high in reversed(runs(left)):
            self._insert_first(lane.id, low, high, taken.fresh)
        self._move_lane(lane.id, head, back - (taken.high - taken.low + 1) + len(left), tail, rotate=False)
        if lane.limited:
            self._limiters.emptied(lane.id)

    def _before_next(self, high: int, tail: int) -> int:
        """The end of a gap that revoked or purged tasks left behind `high`."""
        row = self._db.execute(
            "SELECT id FROM task WHERE id > ? AND id < ? AND due IS NULL LIMIT 1", (high, tail)
        ).fetchone()
        return (row[0] if row else tail) - 1

    def _move_lane(self, lane: int, head: int, back: int, tail: int, *, rotate: bool) -> None:
        if head == tail and not back:
            self._db.execute(
                "UPDATE lane SET head = ?, back = ?, claims = claims + 1, eligible = 0, holes = 0 WHERE id = ?",
                (head, back, lane),
            )
        elif rotate:
            self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'turn'")
            self._db.execute(
                "UPDATE lane SET head = ?, back = ?, claims = claims + 1,"
                " turn = (SELECT value FROM meta WHERE name = 'turn') WHERE id = ?",
                (head, back, lane),
            )
        else:
            self._db.execute("UPDATE lane SET head = ?, back = ?, claims = claims + 1 WHERE id = ?", (head, back, lane))


def _fitting(rows: list[Row], room: int, first: bool) -> tuple[list[Row], int]:
    """The rows that fit into `room` bytes, and their size; one always does when it is the first of all."""
    sizes = list(accumulate(len(body) for _, _, body in rows))
    count = sum(size <= room for size in sizes)
    if not count and first:
        count = 1
    return rows[:count], sizes[count - 1] if count else 0


def deliver(claims: Sequence[Claimed], worker: str) -> tuple[list[Delivery], list[Held]]:
    """Decode what was claimed, outside of the lock."""
    deliveries: list[Delivery] = []
    leases: list[Held] = []
    append = deliveries.append
    for token, lane, rows, let_go in claims:
        first = len(deliveries)
        tasks: dict[int, tuple[str, int]] = {}
        for row, attempts, body in rows:
            try:
                message = unpack(body)
            except DecodeError as error:
                append(Delivery((token, row), row, None, str(error), body, attempts))
                tasks[row] = ("", len(body))
                continue
            if attempts:
                message.attempts = attempts
            append(Delivery((token, row), message.id or row, message))
            tasks[row] = message.task, len(body)
        if let_go is not None:
            for delivery in deliveries[first:]:
                delivery.let_go = let_go
        leases.append(Held(token, lane, tasks, worker))
    return deliveries, leases
