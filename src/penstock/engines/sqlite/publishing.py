"""Publishing, inside a write transaction: bounds, guards, ids, rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from penstock.broker import Accepted, Answer, Conflict, Duplicate, Full
from penstock.engines.sqlite.board import PLACES
from penstock.engines.sqlite.catalog import Catalog, Lane
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.guards import Guards, marks, repeats
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.limiters import Limiters, Met, limit_of
from penstock.engines.sqlite.making_room import MakingRoom, Newcomers, Room
from penstock.engines.sqlite.readying import Readier
from penstock.engines.sqlite.results import Results, find, revoked
from penstock.engines.sqlite.streams import move
from penstock.message import Message, pack
from penstock.public_ids import PublicIds
from penstock.shedding import lowest

APPEND = "UPDATE lane SET tail = tail + ?1 WHERE id = ?2 RETURNING tail, eligible"
PARK = "UPDATE lane SET parked = parked + ?1 WHERE id = ?2 RETURNING parked"
INSERT = "INSERT INTO task VALUES (?, NULL, 0, ?)"
INSERT_DELAYED = "INSERT INTO task VALUES (?, ?, 0, ?)"

SOON = 2.0
"""A task that is due within this many seconds wakes a sleeping worker, which otherwise looks again by itself."""


class Wake(Struct):
    """Whom to wake once the transaction is committed."""

    queues: int = 0
    tasks: int = 0
    results: bool = False
    refused: bool = False
    """All that was published was refused as too much: nothing is there that could be lost."""


class Route(NamedTuple):
    namespace: str
    queue: str
    priority: int
    partition: str


class Outgoing(NamedTuple):
    """A batch, packed. `lane` is there when all of it goes to the end of one lane."""

    messages: Sequence[Message]
    bodies: list[bytes]
    size: int
    lane: Route | None


def all_refused(answers: Sequence[Sequence[Answer]]) -> bool:
    """Whether each message met a full queue. A duplicate has not: its first must be as safe as it is told to be."""
    first = answers[0] if answers else ()
    # The common case is looked at first, since it pays for it.
    return bool(first) and type(first[0]) is Full and all(type(one) is Full for batch in answers for one in batch)


class Publisher:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        counters: Counters,
        readier: Readier,
        limiters: Limiters,
        guards: Guards,
        ids: PublicIds,
        room: MakingRoom,
        results: Results,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._readier = readier
        self._limiters = limiters
        self._guards = guards
        self._ids = ids
        self._room = room
        self._results = results
        self._now = now

    def publish(self, batches: Sequence[Outgoing], wake: Wake) -> list[list[Answer]]:
        """Each batch whole or not at all, in one transaction. Plain messages take the fast way."""
        if len(batches) == 1:
            answers = [self._publish_batch(batches[0], wake)]
        else:
            merged = self._publish_merged(batches, wake)
            answers = [self._publish_batch(batch, wake) for batch in batches] if merged is None else merged
        wake.refused = all_refused(answers)
        return answers

    def _publish_merged(self, batches: Sequence[Outgoing], wake: Wake) -> list[list[Answer]] | None:
        """Many callers' plain messages for one lane as one batch; `None` when they are not, or do not fit."""
        route = batches[0].lane
        if route is None or any(batch.lane != route for batch in batches):
            return None
        messages = [message for batch in batches for message in batch.messages]
        bodies = [body for batch in batches for body in batch.bodies]
        together = Outgoing(messages, bodies, sum(batch.size for batch in batches), route)
        answers = self._append(together, route, wake)
        if isinstance(answers[0], Full):
            return None  # one by one: some may fit
        split: list[list[Answer]] = []
        start = 0
        for batch in batches:
            split.append(answers[start : start + len(batch.messages)])
            start += len(batch.messages)
        return split

    def _publish_batch(self, batch: Outgoing, wake: Wake) -> list[Answer]:
        if batch.lane is not None:
            return self._append(batch, batch.lane, wake)
        return self._publish_mixed(batch.messages, wake) if batch.messages else []

    def follow_up(self, message: Message, wake: Wake) -> Answer:
        """Publish an effect's message: always admitted, and recognised when it is a repeat."""
        return self._refusal(message) or self._insert_one(message, wake)

    def _append(self, batch: Outgoing, route: Route, wake: Wake) -> list[Answer]:
        """Plain ready messages of one lane: one range of ids, one statement for all rows."""
        queue = self._catalog.queue(route.namespace, route.queue)
        lane = self._catalog.lane(queue, route.namespace, route.queue, route.priority, route.partition)
        count = len(batch.bodies)
        if not self._counters.admit(queue, count, batch.size):
            room = self._room.find(Newcomers(queue, route.queue, count, batch.size, route.priority))
            if isinstance(room, Full):
                return [room] * count
            wake.results |= self._room.take(room)
            self._counters.add(queue, count, batch.size)
        # All of its rows: a statement that is not at its end would forbid the commit.
        [(tail, eligible)] = self._db.hot(APPEND, (count, lane.id)).fetchall()
        if not eligible:
            self._db.execute("UPDATE lane SET eligible = 1 WHERE id = ?", (lane.id,))
        wake.queues |= 1 << (queue & 63)
        wake.tasks += count
        if count == 1:
            self._db.hot(INSERT, (tail - 1, batch.bodies[0]))
            return [Accepted(tail - 1)]
        self._db.executemany(INSERT, zip(range(tail - count, tail), batch.bodies, strict=True))
        return [Accepted(row) for row in range(tail - count, tail)]

    def _publish_mixed(self, batch: Sequence[Message], wake: Wake) -> list[Answer]:
        """Any messages: refusals first, then the bounds of every queue for all that is new, then the rows."""
        answers: list[Answer | None] = []
        seen: set[str] = set()
        fresh: list[Message] = []
        for message in batch:
            refused = self._refusal(message)
            if refused is None and not seen.isdisjoint(repeats(message)):
                refused = self._repeat_within(message)
            if refused is None:
                seen.update(marks(message))
                fresh.append(message)
            answers.append(refused)
        rooms = self._find_room(fresh)
        if isinstance(rooms, Full):
            return [answer or rooms for answer in answers]
        for room in rooms:
            wake.results |= self._room.take(room)
        inserted = []
        for message in batch:
            # A repeat inside one batch is seen as soon as its first is there.
            inserted.append(self._refusal(message) or self._insert_one(message, wake))
        return inserted

    def _repeat_within(self, message: Message) -> Answer:
        return Duplicate(message.id) if message.id is not None else Conflict("", None)

    def _find_room(self, fresh: Sequence[Message]) -> list[Room] | Full:
        """Whom the full ones of their queues can shed; `Full`: one cannot."""
        batch = [(one, self._catalog.queue(one.namespace, one.queue), len(pack(one))) for one in fresh]
        names: dict[int, str] = {}
        counts: Counter[int] = Counter()
        sizes: Counter[int] = Counter()
        for message, queue, size in batch:
            names[queue] = message.queue
            counts[queue] += 1
            sizes[queue] += size
        leaving = self._guards.leaving(batch)
        for queue, size in leaving.values():
            counts[queue] -= 1
            sizes[queue] -= size
        rooms: list[Room] = []
        for queue, name in names.items():
            if counts[queue] <= 0 and sizes[queue] <= 0:
                continue  # what takes the place of another fits
            if self._counters.admit(queue, counts[queue], sizes[queue]):
                self._counters.withdraw(queue, counts[queue], sizes[queue])  # only tried: the rows count themselves
                continue
            priority = lowest([message for message, into, _ in batch if into == queue])
            room = self._room.find(Newcomers(queue, name, counts[queue], sizes[queue], priority, leaving.keys()))
            if isinstance(room, Full):
                for other in rooms:
                    self._room.spare(other)
                return room
            rooms.append(room)
        return rooms

    def _refusal(self, message: Message) -> Answer | None:
        """The answer to a message that must not be inserted: known already, or held off by a guard."""
        if message.id is not None and self._is_known(message.id):
            return Duplicate(message.id)
        return self._guards.refusal(message) if message.guards else None

    def _is_revoked(self, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM revoked_name WHERE name = ?", (name,)).fetchone() is not None

    def _refuse_revoked(self, lane: Lane, message: Message, name: str, wake: Wake) -> Answer:
        """The id was revoked before it came: it is accepted, and has ended."""
        row: int = self._db.execute(PARK, (1, lane.id)).fetchone()[0] - 1
        self._name(name, row)
        self._db.execute("DELETE FROM revoked_name WHERE name = ?", (name,))
        self._results.add({row: (message.task, revoked("revoked before it was published", self._now()))}, "")
        wake.results = True
        return Accepted(name)

    def _insert_one(self, message: Message, wake: Wake) -> Answer:
        queue = self._catalog.queue(message.namespace, message.queue)
        minted = self._ids.number(message.id) if message.id is not None else None
        if minted is not None and self._catalog.by_id(lane_of(minted)).limited:
            self._limiters.adopt(lane_of(minted), message)
        lane, met = self._place(queue, message)
        if message.id is not None and self._is_revoked(message.id):
            return self._refuse_revoked(lane, message, message.id, wake)
        if message.guards:
            wake.results |= self._guards.make_way(message)
        delayed = message.eta is not None and message.eta > self._now()
        if delayed:
            self._readier.expect(message.eta or 0.0)
        body = pack(message)
        self._counters.add(queue, 1, len(body), int(delayed))
        if minted is not None:
            row = self._put_again(minted, message.eta if delayed else None, body)
        else:
            row = self._park(lane, message, body) if delayed else self._ready(lane, body)
        self._register(message, row, named=minted is None)
        if not (met is not None and met.closed) and (not delayed or (message.eta or 0.0) < self._now() + SOON):
            wake.queues |= 1 << (queue & 63)
            wake.tasks += 1
        if met is not None and met.opened:
            wake.queues |= met.opened
            wake.tasks += PLACES
        return Accepted(message.id or row)

    def _place(self, queue: int, message: Message) -> tuple[Lane, Met | None]:
        limit = limit_of(message) if message.guards else None
        if limit is None:
            route = (message.namespace, message.queue, message.priority, message.partition)
            return self._catalog.lane(queue, *route), None
        met = self._limiters.meet(queue, message.namespace, limit)
        return self._catalog.limited_lane(queue, message, met.limiter), met

    def _is_known(self, public: str) -> bool:
        """Its task is here, or has ended with a result."""
        row = self._ids.number(public)
        if row is None:
            named = self._db.execute("SELECT id FROM alias WHERE name = ?", (public,)).fetchone()
            return named is not None and self.is_here(named[0])  # a name may be left of which there are parts alone
        # A revoked task leaves a hole where new ones are claimed: what is put there would be delivered twice.
        lane = self._db.execute("SELECT head, tail FROM lane WHERE id = ?", (lane_of(row),)).fetchone()
        if lane is None or lane[0] <= row < lane[1]:
            return True
        return self.is_here(row)

    def is_here(self, row: int) -> bool:
        """Its task waits, runs, is a dead letter, or has a result. Inside a write transaction."""
        for table in ("task", "dead"):
            if self._db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row,)).fetchone():
                return True
        return find(self._db.execute, row) is not None

    def _put_again(self, row: int, due: float | None, body: bytes) -> int:
        """An id that was made here, of a task that left nothing, is given again: it is the place, so it gets that."""
        self._db.execute("INSERT INTO task VALUES (?, ?, 0, ?)", (row, due, body))
        if due is None:
            self._readier.put_back([row])
        return row

    def _ready(self, lane: Lane, body: bytes) -> int:
        tail, eligible = self._db.execute(APPEND, (1, lane.id)).fetchone()
        if not eligible and lane.limited:
            self._limiters.ready(lane.id)
        elif not eligible:
            self._db.execute("UPDATE lane SET eligible = 1 WHERE id = ?", (lane.id,))
        row: int = tail - 1
        self._db.execute(INSERT, (row, body))
        return row

    def _park(self, lane: Lane, message: Message, body: bytes) -> int:
        row: int = self._db.execute(PARK, (1, lane.id)).fetchone()[0] - 1
        self._db.execute(INSERT_DELAYED, (row, message.eta, body))
        return row

    def _register(self, message: Message, row: int, *, named: bool) -> None:
        """The rows by which a chosen id or a guard's key is recognised later."""
        if message.id is not None and named:
            self._name(message.id, row)
        if message.guards:
            self._guards.register(message.guards, row)

    def _name(self, name: str, row: int) -> None:
        """`row` has this id from now on, and the parts that came under it before. A name that is left of a task which
        ended without a result may be given again."""
        self._db.execute("INSERT OR IGNORE INTO alias VALUES (?, ?)", (name, row))
        if not self._db.changes():
            (before,) = self._db.execute("SELECT id FROM alias WHERE name = ?", (name,)).fetchone()
            self._db.execute("UPDATE alias SET id = ? WHERE name = ?", (row, name))
            move(self._db.execute, before, row)


def outgoing(batch: Sequence[Message]) -> Outgoing:
    """Pack a batch, and find out whether it can take the fast way. Pure: done before the lock is taken."""
    return packed(batch, [pack(message) for message in batch])


def packed(batch: Sequence[Message], bodies: list[bytes]) -> Outgoing:
    """`outgoing` for messages that came packed."""
    return Outgoing(batch, bodies, sum(map(len, bodies)), _only_route(batch))


def _only_route(batch: Sequence[Message]) -> Route | None:
    """The lane of all messages, if it is the same for all and nothing needs to be looked up for any."""
    if not batch:
        return None
    first = batch[0]
    queue, priority, namespace, partition = first.queue, first.priority, first.namespace, first.partition
    for message in batch:
        if (
            message.id is not None
            or message.eta is not None
            or message.guards
            or message.queue != queue
            or message.priority != priority
            or message.partition != partition
            or message.namespace != namespace
        ):
            return None
    return Route(namespace, queue, priority, partition)
