"""What is known of lanes and queues, and the numbers that this process has reserved."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence

from penstock.engines.postgres.connecting import Connection
from penstock.engines.postgres.naming import BLOCK
from penstock.engines.postgres.statements import LimitRow, Route
from penstock.message import NORMAL
from penstock.queue import Queue

FRESH = 1.0
"""Seconds for which reserved numbers are used: later ones of other processes shall not come long before."""
KNOWN = 300.0
"""Seconds for which the lanes of limits are known: the server forgets those that nobody used for an hour."""


MOST = 65_536
"""Lanes whose ids are known at once, some 20 MiB; more than a batch can have. One that was forgotten costs a look."""


class Lanes:
    """Names to ids, which never change; but for the lanes of limits, which may go when nobody uses them."""

    def __init__(self, schema: str, declared: Sequence[Queue]) -> None:
        self._declared = {queue.name: queue for queue in declared}
        self._route = f"SELECT queue, lane FROM {schema}.route($1, $2, $3, $4, $5, $6, $7, $8)"
        self._find = f"SELECT id FROM {schema}.queue WHERE namespace = $1 AND name = $2 AND id > 0"
        self._locate = f"SELECT id, queue FROM {schema}.lane WHERE id = ANY ($1)"
        self.by_route: dict[Route, int] = {}
        self.queue_of: dict[int, int] = {}
        self._queues: dict[tuple[str, str], int] = {}
        self._limited_until = 0.0

    def known(self, routes: set[Route]) -> bool:
        """All of these, and lately."""
        if time.monotonic() > self._limited_until:
            self.forget_limited()
        return routes <= self.by_route.keys()

    def forget_limited(self) -> None:
        self.by_route = {route: lane for route, lane in self.by_route.items() if not route.limit}
        self._limited_until = time.monotonic() + KNOWN

    async def learn(
        self,
        connection: Connection,
        routes: Iterable[Route],
        limits: Mapping[tuple[str, str], tuple[int, LimitRow]],
    ) -> None:
        """Make sure that these lanes are known, and there; `limits` has what theirs are. Others may be forgotten."""
        routes = list(routes)
        if len(self.by_route) + len(routes) > MOST:
            self.by_route = {}
        for route in routes:
            if route not in self.by_route:
                bounds = self._declared.get(route.queue) or Queue(route.queue)
                limit = json.dumps(limits[route.namespace, route.limit][1]) if route.limit else None
                queue, lane = await connection.fetchrow(
                    self._route, *route[:4], bounds.max_length, bounds.max_bytes, limit, bounds.overflow
                )
                self._queues[route.namespace, route.queue] = queue
                self.queue_of[lane] = queue
                self.by_route[route] = lane

    async def locate(self, connection: Connection, lanes: Sequence[int]) -> None:
        """Make sure that the queues of these lanes are known."""
        missing = [lane for lane in lanes if lane not in self.queue_of]
        if missing:
            for lane, queue in await connection.fetch(self._locate, missing):
                self.queue_of[lane] = queue

    async def queues(self, connection: Connection, namespace: str, names: Sequence[str]) -> list[int]:
        """The ids of those queues that are there."""
        found = []
        for name in names:
            queue = self._queues.get((namespace, name)) or await connection.fetchval(self._find, namespace, name)
            if queue is not None:
                self._queues[namespace, name] = queue
                found.append(queue)
        return found

    async def make(self, connection: Connection, namespace: str, names: Sequence[str]) -> list[int]:
        """The ids of all these queues, made where they are missing."""
        missing = [name for name in names if (namespace, name) not in self._queues]
        await self.learn(connection, [Route(namespace, name, NORMAL, "") for name in missing], {})
        return [self._queues[namespace, name] for name in names]


class Numbers:
    """Sequence numbers, reserved in blocks, so that they are known before anything is sent."""

    def __init__(self, schema: str) -> None:
        self._draw = f"SELECT nextval('{schema}.block') FROM generate_series(1, $1)"
        self._blocks: list[int] = []
        self._next = self._end = 0
        self._drawn = 0.0
        self._used = 0

    async def take(self, connection: Connection, count: int) -> range:
        """`count` neighbours (at most `BLOCK`)."""
        now = time.monotonic()
        if now - self._drawn > FRESH:
            self._blocks.clear()
            self._next = self._end = 0
        while self._end - self._next < count:
            if not self._blocks:
                # As many as lasted for the last second, within reason.
                wanted = min(16, 1 + (self._used if now - self._drawn < FRESH else 0))
                self._blocks = [row[0] for row in reversed(await connection.fetch(self._draw, wanted))]
                if now - self._drawn > FRESH:
                    self._used = 0
                self._drawn = now
            self._next = self._blocks.pop()
            self._end = self._next + BLOCK
            self._used += 1
        taken = range(self._next, self._next + count)
        self._next += count
        return taken
