"""A plain message for a worker that waits for just that: published and leased at once, inside a write transaction.

It makes no lane eligible and looks for none, which is half of the statements, and a page less to write.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.broker import Demand
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.claiming import LEASE, Claimed
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import LANE_BITS
from penstock.engines.sqlite.publishing import INSERT, Outgoing

PASS = (
    "UPDATE lane SET tail = tail + 1, head = head + 1, claims = claims + 1"
    " WHERE id = ? AND head = tail AND back = 0 AND eligible = 0 RETURNING tail, claims"
)


class Handing:
    def __init__(self, db: Database, catalog: Catalog, counters: Counters, now: Callable[[], float]) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._now = now

    def queue_of(self, outgoing: Outgoing) -> int | None:
        """The queue of what may be handed over: one message that nothing needs to be looked up for."""
        if outgoing.lane is None or len(outgoing.bodies) != 1:
            return None
        queue = self._catalog.queue(outgoing.lane.namespace, outgoing.lane.queue)
        return None if self._catalog.is_paused(queue) else queue

    def hand_over(self, outgoing: Outgoing, demand: Demand) -> Claimed | None:
        """The lease of the new task; `None`, and nothing is done: it is not what was asked for, there is no room for
        it, or others of its lane are before it."""
        route = outgoing.lane
        if route is None or route.namespace != demand.namespace or route.queue not in demand.queues:
            return None
        queue = self._catalog.queue(route.namespace, route.queue)
        lane = self._catalog.lane(queue, route.namespace, route.queue, route.priority, route.partition)
        if demand.limit < 1 or not self._counters.admit(queue, 1, outgoing.size):
            return None
        moved = self._db.hot(PASS, (lane.id,)).fetchall()
        if not moved:
            self._counters.withdraw(queue, 1, outgoing.size)
            return None
        [(tail, claims)] = moved
        row, token = tail - 1, claims << LANE_BITS | lane.id
        self._db.hot(INSERT, (row, outgoing.bodies[0]))
        self._db.hot(LEASE, (token, row, row, demand.worker, self._now() + demand.lease, None))
        return Claimed(token, lane, [(row, 0, outgoing.bodies[0])])
