"""Sets the bounds of governed queues: about once a second, in the process that leads for the queue."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from penstock.clock import Clock
from penstock.coordinator import Coordinator
from penstock.engine import Engine
from penstock.pressure.law import Rate, bound, differs, lasting, rate, scaled, threads_of
from penstock.pressure.reports import Report, Watch, told
from penstock.pressure.samples import Samples, merged
from penstock.queue import Queue, QueueInfo

LEASE = 5.0
"""Seconds after which another process leads where one says nothing any more."""
SILENT = 5.0
"""Seconds after which threads that nobody tells of are not counted any more."""

log = logging.getLogger("penstock.worker")


class Governor:
    def __init__(self, engine: Engine, clock: Clock, namespace: str, grace: float, holder: str) -> None:
        """`grace`: seconds for which the last known rate counts where no worker lives."""
        self._engine = engine
        self._clock = clock
        self._namespace = namespace
        self._grace = grace
        self._holder = holder
        self._watch = Watch(SILENT)
        self._samples = Samples()
        self._rates: dict[str, Rate] = {}
        """Of the queues that this process leads for."""
        self._stored: dict[str, Rate] = {}

    async def govern(self, queues: Sequence[Queue]) -> None:
        """Set the bounds of those for which this process leads."""
        led = [queue for queue in queues if await self._leads(queue)]
        if not led:
            self._samples, self._watch = Samples(), Watch(SILENT)
            return
        inspect = self._engine.inspect
        found = {one.name: one for one in await inspect.queues(self._namespace)}
        live = await self._live()
        changed = []
        for queue in led:
            info = found.get(queue.name)
            if info is None:
                continue  # the first publish makes it, with its declared bound
            wanted = self._bound(queue, info, live)
            if differs(info.max_length, wanted):
                log.info("queue %s is bounded to %d tasks now, from %d", queue.name, wanted, info.max_length)
                changed.append(queue.bounded(wanted))
            await self._store(queue.name)
        if changed:
            await inspect.declare(changed, self._namespace)

    async def _leads(self, queue: Queue) -> bool:
        name = f"{self._name(queue.name)}:lead"
        leads = await self._engine.coordinator.acquire(name, self._holder, LEASE) is not None
        if not leads:
            self._rates.pop(queue.name, None)
            self._stored.pop(queue.name, None)
        elif queue.name not in self._stored:
            last = await stored_rate(self._engine.coordinator, self._name(queue.name))
            self._rates[queue.name] = self._stored[queue.name] = last or Rate(0.0, 0.0)
        return leads

    async def _live(self) -> list[Report]:
        reports = await told(self._engine.coordinator, self._namespace)
        live = self._watch.live(reports, self._clock.monotonic(), self._clock.time())
        self._samples = merged((one.samples for one in live), self._samples)
        return live

    def _bound(self, queue: Queue, info: QueueInfo, live: Sequence[Report]) -> int:
        now = self._clock.time()
        threads = threads_of(queue.name, (one.threads for one in live))
        known = rate(self._samples.of_queue(queue.name), threads, now)
        last = self._rates[queue.name]
        if known is None:
            # New workers that have no samples yet run what the last ones did, for all that is known.
            return bound(queue, info, lasting(scaled(last, threads) if last.per_second else None, now, self._grace))
        self._rates[queue.name] = known
        return bound(queue, info, known)

    async def _store(self, queue: str) -> None:
        """For who leads next: when it has changed, or would soon be too old."""
        known, stored = self._rates[queue], self._stored[queue]
        moved = abs(known.per_second - stored.per_second) > stored.per_second / 20
        if known.per_second and (moved or known.at - stored.at > self._grace / 10):
            await self._engine.coordinator.put(self._name(queue), msgspec.msgpack.encode(known))
            self._stored[queue] = known

    def _name(self, queue: str) -> str:
        return f"pressure:{self._namespace}:of:{queue}"


async def stored_rate(coordinator: Coordinator, name: str) -> Rate | None:
    """What who led before knew; `None` for nothing, or for what is no rate."""
    value = await coordinator.get(name)
    try:
        found = msgspec.msgpack.decode(value[0], type=Rate) if value else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if found is not None and all(0 <= one < 1e12 for one in msgspec.structs.astuple(found)) else None
