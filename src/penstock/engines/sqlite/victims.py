"""Which tasks a full queue sheds, inside a write transaction: looked for lane by lane, never through all that waits.

What nobody had yet of a lane are the rows from its head to its tail, and those that were delayed and came due. The lane
whose task is ready for longest is found by `lane.since`, which is put right where lanes are many; whose is the newest,
among up to `LANES`. What may not be shed is remembered, and passed over the next time.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from itertools import count, groupby
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct, field

from penstock.engines.sqlite.database import Database
from penstock.errors import DecodeError
from penstock.message import Message, unpack
from penstock.shedding import MOST, Excess, is_spared

LANES = 256
"""Lanes that are looked at for one publish."""
LOOKS = 1_000
"""Rows that are looked at for one publish, and may not be shed."""

LANE = "SELECT id, priority, head, tail, back, spared_lo, spared_hi, since FROM lane"
BY_SINCE = LANE + " WHERE queue = ? AND id > 0 ORDER BY since LIMIT ?"
FRONTS = LANE + " WHERE queue = ? AND eligible = 1 AND priority < ? ORDER BY priority, turn DESC LIMIT ?"
OTHERS = LANE + " WHERE queue = ? AND eligible = 2 AND priority < ? ORDER BY priority, turn DESC LIMIT ?"
NEW = "SELECT id, attempts, body FROM task WHERE id >= ? AND id < ? AND due IS NULL ORDER BY id"
DUE = (
    "SELECT t.id, t.attempts, t.body FROM returned r JOIN task t ON t.id BETWEEN r.lo AND r.hi"
    " WHERE r.lane = ? AND r.fresh = 1 ORDER BY r.n"
)


class Victim(NamedTuple):
    """A task that may go, ready since then (Unix time). `returned`: it was delayed, and came due."""

    row: int
    size: int
    since: float
    message: Message
    returned: bool


class Looked(Struct):
    """A lane as it is, and what was found in it."""

    id: int
    priority: int
    head: int
    tail: int
    back: int
    spared_lo: int
    spared_hi: int
    since: float
    edge: int = 0
    """From the head to here, or from here to the tail, every new row was looked at: none but victims may go."""
    spares: bool = False
    """Some of those may not."""
    whole: bool = True
    """There was time to look at all that was asked for."""
    victims: list[Victim] = field(default_factory=list)
    left: list[Victim] = field(default_factory=list)
    """Those that would go next."""


Source = Iterator[Victim]
Heap = list[tuple[float, int, Victim, Source, Looked]]


class Search:
    """For one publish: room for `need`. Rows that are `staying` are not looked at, as they go anyway."""

    def __init__(self, db: Database, need: Excess, staying: Collection[int]) -> None:
        self._db = db
        self._need = need
        self._staying = staying
        self._looks = LOOKS
        self._tasks = self._bytes = 0
        self._numbers = count()
        self.lanes: list[Looked] = []

    @property
    def enough(self) -> bool:
        return self._tasks >= self._need.tasks and self._bytes >= self._need.bytes

    def oldest(self, queue: int) -> None:
        """Those first that are ready for longest, of all lanes."""
        with ExitStack() as open_:
            lanes = self._lanes(open_, BY_SINCE, queue, LANES)
            heap: Heap = []
            following = next(lanes, None)
            while not self.enough and self._tasks < MOST:
                while following is not None and (not heap or following.since <= heap[0][0]):
                    self._enter(heap, following, self._from_head(open_, following), self._due(open_, following))
                    following = next(lanes, None)
                if not heap:
                    break
                self._take(heap, 1)
            _leave(heap)

    def newest(self, queue: int, below: int) -> None:
        """Of the lowest priority those first that are ready for the shortest time, then of the next; of none that is
        not `below`."""
        with ExitStack() as open_:
            both = [self._lanes(open_, lanes, queue, below, LANES) for lanes in (FRONTS, OTHERS)]
            priority = attrgetter("priority")
            for _, lanes in groupby(heapq.merge(*both, key=priority), priority):
                heap: Heap = []
                for lane in lanes:
                    self._enter(heap, lane, self._from_tail(open_, lane), self._due(open_, lane, " DESC"), sign=-1)
                while heap and not self.enough and self._tasks < MOST:
                    self._take(heap, -1)
                _leave(heap)
                if self.enough or self._tasks >= MOST:
                    return

    def _lanes(self, open_: ExitStack, statement: str, *bindings: Any) -> Iterator[Looked]:
        for row in open_.enter_context(closing(self._db.execute(statement, bindings))):
            yield Looked(*row)

    def _enter(self, heap: Heap, lane: Looked, *sources: Source, sign: int = 1) -> None:
        self.lanes.append(lane)
        for source in sources:
            self._push(heap, source, lane, sign)

    def _push(self, heap: Heap, source: Source, lane: Looked, sign: int) -> None:
        victim = next(source, None)
        if victim is not None:
            heapq.heappush(heap, (sign * victim.since, next(self._numbers), victim, source, lane))

    def _take(self, heap: Heap, sign: int) -> None:
        _, _, victim, source, lane = heapq.heappop(heap)
        lane.victims.append(victim)
        self._tasks += 1
        self._bytes += victim.size
        self._push(heap, source, lane, sign)

    def _from_head(self, open_: ExitStack, lane: Looked) -> Source:
        lane.edge = lane.spared_hi if lane.spared_lo <= lane.head < lane.spared_hi else lane.head
        passed = True
        for row, victim in self._rows(open_, lane, NEW, (lane.edge, lane.tail)):
            passed = passed and row not in self._staying
            if victim is not None:
                lane.edge = row if passed else lane.edge
                yield victim
            lane.edge = row + 1 if passed else lane.edge
        lane.edge = lane.tail if passed and lane.whole else lane.edge

    def _from_tail(self, open_: ExitStack, lane: Looked) -> Source:
        lane.edge = lane.tail
        passed = True
        middle = min(max(lane.head, lane.spared_hi), lane.tail)
        for low, high in ((middle, lane.tail), (lane.head, min(middle, max(lane.head, lane.spared_lo)))):
            lane.edge = high if passed else lane.edge
            for row, victim in self._rows(open_, lane, NEW + " DESC", (low, high)):
                passed = passed and row not in self._staying
                if victim is not None:
                    lane.edge = row + 1 if passed else lane.edge
                    yield victim
                lane.edge = row if passed else lane.edge
            if not lane.whole:
                return
            lane.edge = low if passed else lane.edge

    def _due(self, open_: ExitStack, lane: Looked, order: str = "") -> Source:
        if lane.back:
            for _, victim in self._rows(open_, lane, f"{DUE}{order}, t.id{order}", (lane.id,), returned=True):
                if victim is not None:
                    yield victim

    def _rows(
        self, open_: ExitStack, lane: Looked, statement: str, bindings: tuple[int, ...], *, returned: bool = False
    ) -> Iterator[tuple[int, Victim | None]]:
        """Each row, and whether it may go, as long as there is time."""
        for row, attempts, body in open_.enter_context(closing(self._db.execute(statement, bindings))):
            message = None if attempts or row in self._staying else _read(body)
            if message is not None and not is_spared(message):
                yield row, Victim(row, len(body), message.ready_since, message, returned)
                continue
            lane.spares = lane.spares or not returned
            self._looks -= 1
            if self._looks < 0:
                lane.whole = False
                return
            yield row, None


def _leave(heap: Heap) -> None:
    """Note what would have been next of each lane."""
    for _, _, victim, _, lane in heap:
        lane.left.append(victim)


def _read(body: bytes) -> Message | None:
    try:
        return unpack(body)
    except DecodeError:
        return None
