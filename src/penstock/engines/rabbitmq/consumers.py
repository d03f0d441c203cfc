"""The consumers of one connection: one for each lane, kept as long as the demand is about the same."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from penstock.broker import Demand
from penstock.engines.rabbitmq import naming
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.lane import LARGEST_PREFETCH, Lane
from penstock.engines.rabbitmq.settings import Settings
from penstock.engines.rabbitmq.topology import Topology
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import BrokerUnavailable, PenstockError

IDLE = 0.05
"""Seconds without a step after which what waits here goes back to its queue: what runs takes long."""
SLOW = 5.0
"""Seconds for which nothing is asked for in advance after that."""
SHORT = 16
"""A demand of so many means that tasks are short: then as many again are on their way while these run."""
GRACE = 0.02
"""Seconds for the more urgent lanes to answer, when all have just been asked."""
HEALTH = 10.0
"""Seconds without a message after which the queues are asked whether they have some."""

log = logging.getLogger("penstock.engine")


class Consumers:
    def __init__(self, settings: Settings, connection: Connection) -> None:
        self.connection = connection
        self.topology = Topology(settings, connection)
        self.lanes: dict[str, Lane] = {}
        self.by_token: dict[str, Lane] = {}
        self._opening = asyncio.Lock()
        self._token = secrets.token_hex(6)
        self._tokens = 0
        self._known: dict[str, list[int]] = {}
        self._wanting = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stepped = time.monotonic()
        self._served = time.monotonic()
        self._suspected = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._health = asyncio.get_running_loop().call_later(HEALTH, self._look)
        connection.on_lost.append(self._on_lost)

    def heard(self, lane: str) -> None:
        """Somebody made a lane that was not there."""
        queue, priority = naming.split_lane(lane)
        known = self._known.get(queue)
        if known is not None and priority not in known:
            known.append(priority)
            known.sort(reverse=True)
            self._ring_all()

    async def reserve(
        self,
        names: Sequence[str],
        want: Demand,
        until: float,
        take: Callable[[Lane, Content], bool],
        stop: asyncio.Event,
    ) -> int:
        """Hand up to `want.limit` messages of the queues `names` to `take`, which tells whether it took one; wait
        `until` (monotonic) for the first, or for `stop`. Returns how many."""
        self._wanting += want.limit
        try:
            while True:
                lanes = await self._open(names)
                await self._ask(lanes)
                taken = self._take(lanes, want, take)
                left = until - time.monotonic()
                if taken or left <= 0 or stop.is_set():
                    return taken
                await self._arrival(left)
        finally:
            self._wanting -= want.limit
            self._stepped = time.monotonic()
            self._ring()  # somebody else may want what is left
            self._watch_idle()

    def _take(self, lanes: Sequence[Lane], want: Demand, take: Callable[[Lane, Content], bool]) -> int:
        count = size = 0
        for lane in lanes:
            arrived = lane.arrived
            more = bool(arrived) and lane.room <= 0
            while arrived and count < want.limit:
                size += len(arrived[0].body)
                if count and size > want.max_bytes:
                    return count
                count += take(lane, lane.take())
            if more and count:
                break  # the queue may have more of these, which go before those of the next
        return count

    async def _open(self, names: Sequence[str]) -> list[Lane]:
        """The lanes of these queues, the most urgent first."""
        lanes, missing = self._ordered(names)
        if not missing:
            return lanes
        async with self._opening:
            for name in names:
                if name not in self._known:
                    self._known[name] = await self.topology.lanes(name)
                for priority in self._known[name]:
                    lane = naming.lane_name(name, priority)
                    if lane not in self.lanes:
                        await self._open_lane(name, lane, priority)
        return self._ordered(names)[0]

    def _ordered(self, names: Sequence[str]) -> tuple[list[Lane], bool]:
        lanes, missing = [], False
        for name in names:
            known = self._known.get(name)
            if known is None:
                missing = True
                continue
            for priority in known:
                lane = self.lanes.get(naming.lane_name(name, priority))
                if lane is None:
                    missing = True
                else:
                    lanes.append(lane)
        if len(lanes) > 1:
            lanes.sort(key=lambda lane: -lane.priority)
        return lanes, missing

    async def _open_lane(self, queue: str, name: str, priority: int) -> None:
        channel = await self.connection.channel()
        self._tokens += 1
        lane = Lane(queue, name, priority, f"{self._token}.{self._tokens}", channel)
        lane.wake, lane.gone = self._on_arrival, self._on_gone
        self.lanes[name] = self.by_token[lane.token] = lane

    async def _ask(self, lanes: Sequence[Lane]) -> None:
        """Make sure that the server may send what is wanted."""
        share = min(-(-self._wanting // max(1, len(lanes))), LARGEST_PREFETCH)
        calls = [lane.ask(share, self._prefetch(lane, share)) for lane in lanes if lane.coming < share]
        if not calls:
            return
        await asyncio.gather(*calls)
        if len(lanes) > 1:
            # Nobody had been asked before: what comes first need not be what is most urgent.
            deadline = time.monotonic() + GRACE
            while not all(len(lane.arrived) >= share for lane in lanes) and (left := deadline - time.monotonic()) > 0:
                await self._arrival(left)

    def _prefetch(self, lane: Lane, share: int) -> int:
        if time.monotonic() < lane.slow_until:
            return share
        if share >= SHORT:
            return min(2 * share, LARGEST_PREFETCH)
        return min(
            share + len(lane.held), LARGEST_PREFETCH
        )  # slots that are busy now will ask again, and need no new consumer for it

    async def _arrival(self, seconds: float) -> None:
        """Wait for something to look at, or for the time to pass. Raises why the connection is lost."""
        if self.connection.error is not None:
            raise self.connection.error
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        handle = asyncio.get_running_loop().call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            handle.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if self.connection.error is not None:
            raise self.connection.error

    def interrupt(self) -> None:
        """Let all who wait look again."""
        self._ring_all()

    def _on_arrival(self, lane: Lane) -> None:
        self._served = time.monotonic()
        self._suspected = False
        if self._waiters:
            self._ring()
        elif not self._wanting:
            self._watch_idle()

    def _ring(self) -> None:
        """Wake one who waits, if there is something."""
        if self._waiters and any(lane.arrived for lane in self.lanes.values()):
            waiter = self._waiters.pop(0)
            _wake(waiter)

    def _ring_all(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _wake(waiter)

    # -- giving back

    def _watch_idle(self) -> None:
        if self._timer is None and not self._wanting and any(lane.coming for lane in self.lanes.values()):
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._idle)

    def _idle(self) -> None:
        self._timer = None
        if self._wanting or self.connection.error is not None:
            return
        if time.monotonic() - self._stepped < IDLE:
            self._watch_idle()
            return
        for lane in self.lanes.values():
            if lane.arrived:
                lane.slow_until = time.monotonic() + SLOW
        self._spawn(self.rest())

    async def rest(self) -> None:
        """Nobody wants anything now: what waits goes back, and nothing more is sent."""
        if self._wanting:
            return
        lanes = [lane for lane in self.lanes.values() if lane.consumer]
        if lanes:
            await asyncio.gather(*(lane.rest() for lane in lanes))

    async def release_all(self) -> int:
        """Give back what is held, too."""
        count = 0
        for lane in list(self.lanes.values()):
            for tag in list(lane.held) if lane.alive else ():
                lane.requeue(tag)
                count += 1
            await lane.rest()
        return count

    # -- what breaks

    def _on_gone(self, lane: Lane, error: PenstockError | None) -> None:
        self.topology.forget(lane.name)
        self.lanes.pop(lane.name, None)
        self._known.pop(lane.queue, None)
        if error is not None:
            self.by_token.pop(lane.token, None)
            if self.connection.error is None:
                log.warning("queue %s: its leases are lost: %s", lane.name, error)
        self._ring_all()

    def _on_lost(self, error: PenstockError) -> None:
        self._health.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._ring_all()

    def _look(self) -> None:
        self._health = asyncio.get_running_loop().call_later(HEALTH, self._look)
        if self._wanting and time.monotonic() - self._served >= HEALTH:
            self._spawn(self._check_progress())

    async def _check_progress(self) -> None:
        """Nothing came for a while: is there nothing?"""
        waiting = [lane for lane in self.lanes.values() if lane.consumer and lane.room and not lane.arrived]
        for lane in waiting:
            ready = await self.topology.ready_or_none(lane.name)
            if ready and not lane.arrived and time.monotonic() - self._served >= HEALTH:
                if self._suspected:
                    text = f"queue {lane.name}: {ready} messages are ready, and none was delivered for {HEALTH:.0f} s"
                    log.warning("%s; connecting anew", text)
                    self.connection.abort(BrokerUnavailable(text))
                self._suspected = True
                return
        self._suspected = False

    def _spawn(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(call: Coroutine[Any, Any, None]) -> None:
    try:
        await call
    except PenstockError as error:
        log.debug("in the background: %s", error)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
