"""Bounds of governed queues, where the broker keeps none that could change: in the small shared state beside the
results, written by who leads for the queue, read by whoever publishes."""

from __future__ import annotations

from math import isfinite

import msgspec

from penstock.apart import beside
from penstock.blocking import bounded
from penstock.clock import Clock
from penstock.coordinator import Shared
from penstock.engine import Engine
from penstock.errors import PenstockError
from penstock.pressure.election import queue_name
from penstock.queue import LARGEST, Bound, Bounds

EVERY = 0.5
"""Seconds between two looks at one bound."""
PATIENCE = 0.25
"""Seconds that a publish waits for one."""
REST = 5.0
"""Seconds until it is tried again, where it could not be read."""


def bound_name(namespace: str, queue: str) -> str:
    return f"{queue_name(namespace, queue)}:bound"


async def store(state: Shared, namespace: str, queue: str, bound: Bound) -> None:
    await state.put(bound_name(namespace, queue), msgspec.msgpack.encode(bound))


def followed(results: Engine, clock: Clock, grace: float) -> Bounds | None:
    """The bounds that are kept where results are; `None`: nothing is kept there. `grace` in seconds."""
    state = beside(results)
    return Followed(state, clock, grace).of if state is not None else None


class Followed:
    """`penstock.queue.Bounds`, as this process knows them. One that cannot be read, or that nobody renews, is the last
    that was known, for the time of grace."""

    def __init__(self, state: Shared, clock: Clock, grace: float) -> None:
        """`grace` in seconds."""
        self._state = state
        self._clock = clock
        self._grace = grace
        self._known: dict[tuple[str, str], tuple[Bound | None, float]] = {}
        """Of a queue in its namespace; and from when on (monotonic) it is read again."""

    async def of(self, queue: str, namespace: str) -> Bound | None:
        place, now = (queue, namespace), self._clock.monotonic()
        found, due = self._known.get(place, (None, float("-inf")))
        if now >= due:
            if place in self._known:
                self._known[place] = found, now + EVERY  # others need not look meanwhile
            found = await self._look(place, now, found)
        return found if found is not None and abs(self._clock.time() - found.at) <= self._grace else None

    async def _look(self, place: tuple[str, str], now: float, last: Bound | None) -> Bound | None:
        queue, namespace = place
        try:
            value = await bounded(self._state.get(bound_name(namespace, queue)), PATIENCE)
        except PenstockError:
            self._known[place] = last, now + REST
            return last
        found = read(value[0] if value else None)
        self._known[place] = found, now + EVERY
        return found


def read(data: bytes | None) -> Bound | None:
    """`None` for nothing, and for what is no bound."""
    try:
        found = msgspec.msgpack.decode(data, type=Bound) if data is not None else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    known = found is not None and 1 <= found.tasks <= LARGEST and isfinite(found.at) and 0 <= found.per_second < 1e12
    return found if known else None
