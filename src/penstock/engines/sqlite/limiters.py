"""Limits, inside write transactions: the limiter of each key, and which of its lanes may be claimed.

A closed limiter's lanes are not eligible, so that a claim never meets them, however many they are. Of an open one, the
lane whose turn it is in each queue is: its front. So opening and closing cost the same for one partition and for a
thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct, field

from penstock.engines.sqlite.database import Database
from penstock.errors import DecodeError
from penstock.limiting import Limiter, admit, cost_of, is_spent, renewed
from penstock.message import Limit, Message, unpack

REST = 0.005
"""Seconds for which a limiter stays closed at least: of a fast one several go at a time, as its line allows, and
workers are not woken for each."""
LOOK = 60.0
"""Seconds after which it is seen whether a limiter can be forgotten, and again."""
LOOK_AT_ONCE = 100
ANY = (1 << 64) - 1

FIND = "SELECT id, rate, burst, concurrency, full, closed, queues FROM limiter WHERE namespace = ? AND key = ?"
MAKE = (
    "INSERT INTO limiter (namespace, key, rate, burst, concurrency, full, queues, look)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
)
OF_LANE = (
    "SELECT m.id, m.rate, m.burst, m.concurrency, m.full FROM lane l JOIN limiter m ON m.id = l.limiter WHERE l.id = ?"
)
LEASED = "SELECT coalesce(sum(hi - lo + 1), 0) FROM lease WHERE limiter = ?"
NEXT_QUEUE = (
    "SELECT queue FROM lane WHERE limiter = ?1 AND limiter > 0 AND eligible = 2 AND queue > ?2 ORDER BY queue LIMIT 1"
)
STEP_BACK = "UPDATE lane SET eligible = 2 WHERE limiter = ?1 AND limiter > 0 AND eligible = 1 AND queue = ?2"
STEP_UP = (
    "UPDATE lane SET eligible = 1 WHERE id = (SELECT id FROM lane WHERE limiter = ?1 AND limiter > 0 AND eligible = 2"
    " AND queue = ?2 ORDER BY priority DESC, turn LIMIT 1)"
)
IS_EMPTY = (
    "SELECT head = tail AND back = 0"
    " AND NOT EXISTS (SELECT 1 FROM task WHERE task.id >= lane.id << 45 AND task.id < (lane.id + 1) << 45)"
    " AND NOT EXISTS (SELECT 1 FROM dead WHERE dead.id >= lane.id << 45 AND dead.id < (lane.id + 1) << 45)"
    " FROM lane WHERE limiter = ?1 AND limiter > 0"
)


class Met(NamedTuple):
    """The limiter of a message. `opened`: the bit set of queues that may have work by what it says."""

    limiter: int
    closed: bool
    opened: int


class Opening(NamedTuple):
    """Unix time at which a limiter lets tasks go again, or still, and the bit set of queues that may have work then."""

    at: float
    queues: int


class Entrance(Struct):
    """What may be claimed of a limited lane now: up to `most`, as far as `admits` says. `again` is when the next one
    may go, once one was refused."""

    id: int
    limiter: Limiter
    leased: int
    most: int
    now: float
    after: list[Limiter] = field(default_factory=list)
    """The limiter after each of those that were admitted."""
    refused: bool = False
    again: float | None = None

    def admits(self, body: bytes) -> bool:
        made = admit(self.limiter, (_cost(body, self.now),), self.leased + len(self.after), self.now)
        if not made.count:
            self.refused, self.again = True, made.again
            return False
        self.limiter = made.after
        self.after.append(made.after)
        return True


class Limiters:
    def __init__(self, db: Database, now: Callable[[], float]) -> None:
        self._db = db
        self._now = now

    # What comes.

    def meet(self, queue: int, namespace: str, limit: Limit) -> Met:
        """The limiter of a message that comes now. What its limit says holds for all of the key from here on."""
        bit = signed(1 << (queue & 63))
        row = self._db.execute(FIND, (namespace, limit.key)).fetchone()
        if row is None:
            made = (namespace, limit.key, limit.rate, limit.burst, limit.concurrency, 0.0, bit, self._now() + LOOK)
            return Met(self._db.execute(MAKE, made).fetchone()[0], False, 0)
        number, *known, closed, queues = row
        if not queues & bit:
            self._db.execute("UPDATE limiter SET queues = queues | ? WHERE id = ?", (bit, number))
        if known[:3] == [limit.rate, limit.burst, limit.concurrency]:
            return Met(number, bool(closed), 0)
        new = renewed(Limiter(*known), limit, self._now())
        self._db.execute(
            "UPDATE limiter SET rate = ?, burst = ?, concurrency = ?, full = ? WHERE id = ?",
            (new.rate, new.burst, new.concurrency, new.full, number),
        )
        return Met(number, False, self.open(number))

    def adopt(self, lane: int, message: Message) -> None:
        """A task comes back to a lane whose limiter was forgotten meanwhile. If another has the lane now, it waits
        among the tasks of that."""
        owner, queue = self._db.execute("SELECT limiter, queue FROM lane WHERE id = ?", (lane,)).fetchone()
        if owner < 0:
            met = self.meet(queue, message.namespace, limit_of(message) or Limit(""))
            self._db.execute("UPDATE lane SET limiter = ? WHERE id = ?", (met.limiter, lane))

    def ready(self, lane: int) -> bool:
        """The lane has work (again); whether some of it may go now, for all that is known."""
        limiter, queue, closed = self._db.execute(
            "SELECT m.id, l.queue, m.closed FROM lane l JOIN limiter m ON m.id = l.limiter WHERE l.id = ?", (lane,)
        ).fetchone()
        self._db.execute("UPDATE lane SET eligible = 2 WHERE id = ? AND eligible = 0", (lane,))
        if not closed:
            self._choose_front(limiter, queue)
        return not closed

    # What goes.

    def enter(self, lane: int, limit: int) -> Entrance:
        """With `most` of 0 none may go, and the limiter is closed now. Where leases count, each is of one task: so
        their number is that of the tasks, whatever becomes of these."""
        number, *known = self._db.execute(OF_LANE, (lane,)).fetchone()
        limiter = Limiter(*known)
        if limiter.concurrency is None:
            return Entrance(number, limiter, 0, limit, self._now())
        leased = self._db.execute(LEASED, (number,)).fetchone()[0]
        entrance = Entrance(number, limiter, leased, int(leased < limiter.concurrency), self._now())
        if not entrance.most:
            self._close(number, None)
        return entrance

    def leave(self, entrance: Entrance, queue: int, count: int) -> Opening | None:
        """`count` of those that were admitted have gone, and the lane has been moved. If no more may, the limiter is
        closed. Returned is when others may go, if there are any and it is known."""
        if count and entrance.limiter.rate is not None:
            self._db.execute("UPDATE limiter SET full = ? WHERE id = ?", (entrance.after[count - 1].full, entrance.id))
        if entrance.refused and count == len(entrance.after):
            again = None if entrance.again is None else max(entrance.again, entrance.now + REST)
            return self._close(entrance.id, again)
        left = self._choose_front(entrance.id, queue)
        return Opening(entrance.now, 1 << (queue & 63)) if left else None

    def freed(self, lane: int) -> int:
        """A leased task of this lane came back, or ended; returns the bit set of queues that have work by that."""
        row = self._db.execute(
            "SELECT m.id FROM lane l JOIN limiter m ON m.id = l.limiter"
            " WHERE l.id = ? AND m.closed = 1 AND m.again IS NULL",
            (lane,),
        ).fetchone()
        return 0 if row is None else self.open(row[0])

    def emptied(self, lane: int) -> None:
        """The lane has lost work that nobody claimed: another may be the front of its queue now."""
        limiter, queue, closed = self._db.execute(
            "SELECT m.id, l.queue, m.closed FROM lane l JOIN limiter m ON m.id = l.limiter WHERE l.id = ?", (lane,)
        ).fetchone()
        if not closed:
            self._choose_front(limiter, queue)

    def open(self, limiter: int) -> int:
        """Let claims look at it again; returns the bit set of queues where some of its tasks wait."""
        self._db.execute("UPDATE limiter SET closed = 0, again = NULL WHERE id = ?", (limiter,))
        queues, last = 0, 0
        while row := self._db.execute(NEXT_QUEUE, (limiter, last)).fetchone():
            last = row[0]
            self._choose_front(limiter, last)
            queues |= 1 << (last & 63)
        return queues

    def _close(self, limiter: int, again: float | None) -> Opening | None:
        queues = self._db.execute(
            "UPDATE limiter SET closed = 1, again = ? WHERE id = ? RETURNING queues", (again, limiter)
        ).fetchone()[0]
        self._db.execute("UPDATE lane SET eligible = 2 WHERE limiter = ? AND limiter > 0 AND eligible = 1", (limiter,))
        return None if again is None else Opening(again, queues & ANY)

    def _choose_front(self, limiter: int, queue: int) -> bool:
        """Whether there is any."""
        self._db.execute(STEP_BACK, (limiter, queue))
        self._db.execute(STEP_UP, (limiter, queue))
        return bool(self._db.changes())

    # What is over.

    def forget(self) -> int:
        """Drop limiters that say no more than new ones would, and of which no task is left; returns how many. Their
        lanes go to the next keys, since there can only be so many."""
        now = self._now()
        due = self._db.execute(
            "SELECT id, rate, burst, concurrency, full FROM limiter WHERE look < ? ORDER BY look LIMIT ?",
            (now, LOOK_AT_ONCE),
        ).fetchall()
        for number, *known in due:
            leased = self._db.execute(LEASED, (number,)).fetchone()[0]
            if is_spent(Limiter(*known), leased, now) and self._is_empty(number):
                self._db.execute(
                    "UPDATE lane SET limiter = -1, eligible = 0 WHERE limiter = ?1 AND limiter > 0", (number,)
                )
                self._db.execute("DELETE FROM limiter WHERE id = ?", (number,))
            else:
                self._db.execute("UPDATE limiter SET look = ? WHERE id = ?", (now + LOOK, number))
        return len(due)

    def _is_empty(self, limiter: int) -> bool:
        return all(empty for (empty,) in self._db.execute(IS_EMPTY, (limiter,)).fetchall())


def limit_of(message: Message) -> Limit | None:
    for guard in message.guards:
        if type(guard) is Limit:
            return guard
    return None


def _cost(body: bytes, now: float) -> float:
    """Of a stored message. What cannot be read goes to the dead letters, and must not be held up."""
    try:
        message = unpack(body)
    except DecodeError:
        return 1.0
    limit = limit_of(message)
    return cost_of(1.0 if limit is None else limit.cost, message.expires, now)


def signed(bits: int) -> int:
    """A bit set of 64 as the database has it."""
    return (bits ^ 1 << 63) - (1 << 63)
