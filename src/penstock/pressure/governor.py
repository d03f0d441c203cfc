"""Sets the bounds of governed queues: about once a second, in the process that leads for the queue."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from penstock.clock import Clock
from penstock.coordinator import Shared
from penstock.engine import Engine
from penstock.pressure.bounds import store
from penstock.pressure.election import queue_name
from penstock.pressure.law import Rate, bound, differs, lasting, rate, scaled, threads_of
from penstock.pressure.reports import Report
from penstock.pressure.samples import Samples
from penstock.queue import Bound, Queue, QueueInfo

log = logging.getLogger("penstock.worker")


class Governor:
    def __init__(self, engine: Engine, coordinator: Shared, clock: Clock, namespace: str, grace: float) -> None:
        """`grace`: seconds for which the last known rate counts where no worker lives."""
        self._engine = engine
        self._coordinator = coordinator
        self._clock = clock
        self._namespace = namespace
        self._grace = grace
        self._rates: dict[str, Rate] = {}
        """Of the queues that this process leads for."""
        self._stored: dict[str, Rate] = {}
        self._told: dict[str, float] = {}
        """When publishers were told a bound that the engine does not keep."""

    async def govern(
        self, led: Sequence[Queue], found: Mapping[str, QueueInfo], live: Sequence[Report], samples: Samples
    ) -> None:
        """Set the bounds of the queues for which this process leads. `samples` are those of `live` together."""
        await self._take_over(led)
        changed = []
        for queue in led:
            info = found.get(queue.name)
            if info is None:
                continue  # the first publish makes it, with its declared bound
            wanted = self._bound(queue, info, live, samples)
            moves = differs(info.max_length, wanted)
            if moves:
                log.info("queue %s is bounded to %d tasks now, from %d", queue.name, wanted, info.max_length)
            if self._engine.broker.features.follows:
                await self._tell(queue, wanted if moves else info.max_length, moves)
            elif moves:
                changed.append(queue.bounded(wanted))
            await self._store(queue.name)
        if changed:
            await self._engine.inspect.declare(changed, self._namespace)

    async def _take_over(self, led: Sequence[Queue]) -> None:
        names = {queue.name for queue in led}
        for lost in self._stored.keys() - names:
            del self._rates[lost], self._stored[lost]
            self._told.pop(lost, None)
        for queue in names - self._stored.keys():
            last = await stored_rate(self._coordinator, self._name(queue))
            self._rates[queue] = self._stored[queue] = last or Rate(0.0, 0.0)

    def _bound(self, queue: Queue, info: QueueInfo, live: Sequence[Report], samples: Samples) -> int:
        now = self._clock.time()
        threads = threads_of(queue.name, (one.threads for one in live))
        known = rate(samples.of_queue(queue.name), threads, now)
        last = self._rates[queue.name]
        # What runs is in the length of the law, and not everywhere in that of the queue.
        running = samples.busy.get(queue.name, 0.0) if info.leased is None else 0.0
        if known is None:
            # New workers that have no samples yet run what the last ones did, for all that is known.
            known = lasting(scaled(last, threads) if last.per_second else None, now, self._grace)
            return bound(queue, info, known, running)
        self._rates[queue.name] = known
        return bound(queue, info, known, running)

    async def _tell(self, queue: Queue, tasks: int, moves: bool) -> None:
        """For publishers to read: when it has changed, or would soon be too old."""
        name, now = queue.name, self._clock.time()
        known, old = self._rates[name].per_second, abs(now - self._told.get(name, float("-inf"))) > self._grace / 10
        if moves or (old and (known or tasks < queue.max_length)):
            await store(self._coordinator, self._namespace, name, Bound(tasks, known, now))
            self._told[name] = now

    async def _store(self, queue: str) -> None:
        """For who leads next: when it has changed, or would soon be too old."""
        known, stored = self._rates[queue], self._stored[queue]
        moved = abs(known.per_second - stored.per_second) > stored.per_second / 20
        if known.per_second and (moved or known.at - stored.at > self._grace / 10):
            await self._coordinator.put(self._name(queue), msgspec.msgpack.encode(known))
            self._stored[queue] = known

    def _name(self, queue: str) -> str:
        return queue_name(self._namespace, queue)


async def stored_rate(coordinator: Shared, name: str) -> Rate | None:
    """What who led before knew; `None` for nothing, or for what is no rate."""
    value = await coordinator.get(name)
    try:
        found = msgspec.msgpack.decode(value[0], type=Rate) if value else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if found is not None and all(0 <= one < 1e12 for one in msgspec.structs.astuple(found)) else None
