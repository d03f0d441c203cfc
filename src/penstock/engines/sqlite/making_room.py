"""Making room in a full queue (`penstock.shedding`), inside a write transaction, or saying how full it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from penstock import shedding
from penstock.broker import Full
from penstock.draining import Drains
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.limiters import Limiters
from penstock.engines.sqlite.readying import Readier
from penstock.engines.sqlite.results import Results
from penstock.engines.sqlite.revoking import Revoker
from penstock.engines.sqlite.victims import Looked, Search
from penstock.outcome import Outcome

FEW = 8
"""Lanes that are looked at again each time; of more it is noted what was seen."""
BURY = "INSERT OR REPLACE INTO dead SELECT id, ?, ?, ?, attempts, body FROM task WHERE id = ?"
MOVE = (
    "UPDATE lane SET head = ?1, holes = max(0, holes + ?2), spared_lo = ?3, spared_hi = ?4,"
    " eligible = eligible * (?1 < tail OR back > 0) WHERE id = ?5"
)


class Newcomers(NamedTuple):
    """`tasks` messages of `size` bytes that find their queue full, and are worth what the lowest `priority` among them
    is. Tasks that are `staying` are not shed: they make way by themselves, and are taken off already."""

    queue: int
    name: str
    tasks: int
    size: int
    priority: int
    staying: Collection[int] = ()


class Room(NamedTuple):
    """Whom a full queue can shed, and why."""

    queue: int
    lanes: Sequence[Looked]
    reason: str
    forward: bool


class MakingRoom:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        counters: Counters,
        readier: Readier,
        limiters: Limiters,
        revoker: Revoker,
        results: Results,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._readier = readier
        self._limiters = limiters
        self._revoker = revoker
        self._results = results
        self._drains = Drains(now)
        self._now = now

    def find(self, new: Newcomers) -> Room | Full:
        """Who would make room. Nothing has changed yet (see `take`, `spare`)."""
        depth, used, max_length, max_bytes = self._counters.levels(new.queue)
        over = depth + new.tasks > max_length
        unit, limit = ("tasks", max_length) if over else ("bytes", max_bytes)
        [policy] = self._db.execute("SELECT overflow FROM queue WHERE id = ?", (new.queue,)).fetchone()
        need = shedding.excess(new.tasks, new.size, depth, used, max_length, max_bytes)
        if policy in shedding.SHEDDING and need is not None:
            self._readier.promote()  # what is due is ready
            search = Search(self._db, need, new.staying)
            forward = policy == shedding.DROP_OLDEST
            if forward:
                search.oldest(new.queue)
            else:
                search.newest(new.queue, new.priority)
            why = shedding.reason(policy, new.name, unit, limit, new.priority)
            room = Room(new.queue, search.lanes, why, forward)
            if search.enough:
                return room
            self.spare(room)
        excess = depth + new.tasks - max_length
        if not over:
            excess = max(1, new.tasks * (used + new.size - max_bytes) // max(1, new.size))
        after = self._drains.retry_after(new.queue, self._counters.worked_off(new.queue), excess, depth)
        return Full(new.name, depth if over else used, limit, unit, after)

    def spare(self, room: Room) -> None:
        """They stay: what was seen is noted, for the next time."""
        for lane in room.lanes:
            kept = [victim.row for victim in lane.victims if not victim.returned]
            if kept:
                lane.edge = min(lane.edge, *kept) if room.forward else max(lane.edge, max(kept) + 1)
            lane.left += lane.victims
            self._note_spared(lane, room.forward)
        self._note_since(room)

    def take(self, room: Room) -> bool:
        """They become dead letters; whether somebody is to be told of that."""
        now = self._now()
        victims = [victim for lane in room.lanes for victim in lane.victims]
        outcomes: dict[int, tuple[str, Outcome]] = {}
        for victim in victims:
            self._db.execute(BURY, (room.queue, room.reason, now, victim.row))
            self._db.execute("DELETE FROM task WHERE id = ?", (victim.row,))
            if victim.message.guards:
                self._db.execute("DELETE FROM unique_key WHERE id = ? AND NOT lasting", (victim.row,))
            outcome = shedding.outcome(victim.message, room.reason, now)
            if outcome is not None:
                outcomes[victim.row] = (victim.message.task, outcome)
        self._counters.shed(room.queue, len(victims), sum(victim.size for victim in victims))
        for lane in room.lanes:
            if lane.victims:
                self._move(lane, room.forward)
            else:
                self._note_spared(lane, room.forward)
        self._note_since(room)
        self._results.add(outcomes, "")
        return bool(outcomes)

    def _move(self, lane: Looked, forward: bool) -> None:
        """Behind those that went. In the midst of what stays they leave holes."""
        for victim in lane.victims:
            if victim.returned:
                self._revoker.shrink_returned(victim.row)
        gone = [victim.row for victim in lane.victims if not victim.returned]
        if gone:
            head = lane.head
            none_stays = lane.spared_hi <= lane.head or lane.spared_lo >= lane.tail
            if none_stays and not lane.spares:
                head = lane.edge if forward else lane.tail if lane.edge == lane.head else lane.head
            holes = len(gone) - (head - lane.head)
            self._db.execute(MOVE, (head, holes, *_spared(lane, forward), lane.id))
        if self._catalog.by_id(lane.id).limited:
            self._limiters.emptied(lane.id)

    def _note_spared(self, lane: Looked, forward: bool) -> None:
        low, high = _spared(lane, forward)
        if (low, high) != (lane.spared_lo, lane.spared_hi):
            self._db.execute("UPDATE lane SET spared_lo = ?, spared_hi = ? WHERE id = ?", (low, high, lane.id))

    def _note_since(self, room: Room) -> None:
        if not room.forward or len(room.lanes) <= FEW:
            return
        for lane in room.lanes:
            since = min((victim.since for victim in lane.left), default=self._now())
            if lane.whole and since != lane.since:
                self._db.execute("UPDATE lane SET since = ? WHERE id = ?", (since, lane.id))


def _spared(lane: Looked, forward: bool) -> tuple[int, int]:
    """Rows of which none may be shed: what was known of the lane, or what is known now."""
    low, high = (lane.head, lane.edge) if forward else (lane.edge, lane.tail)
    known = lane.spared_hi - max(lane.spared_lo, lane.head)  # what is before the head was claimed
    return (low, high) if lane.spares and high - low > known else (lane.spared_lo, lane.spared_hi)
