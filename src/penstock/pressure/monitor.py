"""Raises and clears alarms: about once a second, for the queues that this process leads for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.clock import Clock
from penstock.coordinator import Shared
from penstock.pressure import readings
from penstock.pressure.alarms import Alarms, PressureEvent, Reading
from penstock.pressure.raised import FRESH, raised, store
from penstock.pressure.readings import Limits, Usual
from penstock.pressure.reports import Report
from penstock.pressure.samples import Samples
from penstock.queue import Queue, QueueInfo


class Monitor:
    def __init__(
        self,
        coordinator: Shared,
        clock: Clock,
        namespace: str,
        limits: Limits,
        expected: Callable[[str], float | None],
    ) -> None:
        """`expected`: seconds that are declared of a task, by its name."""
        self._coordinator = coordinator
        self._clock = clock
        self._namespace = namespace
        self._limits = limits
        self._expected = expected
        self._alarms = Alarms()
        self._usual = Usual()
        self._led: frozenset[str] = frozenset()
        self._stored = float("-inf")

    @property
    def quiet(self) -> bool:
        """No alarm is active."""
        return not self._alarms.active

    async def look(
        self, led: Sequence[Queue], found: Mapping[str, QueueInfo], live: Sequence[Report], samples: Samples
    ) -> list[PressureEvent]:
        """What has begun, and what is over, in the queues that are led."""
        names = frozenset(queue.name for queue in led)
        await self._take_over(names)
        now = self._clock.time()
        monotonic = self._clock.monotonic()
        self._usual.learn(samples, self._limits.times or 3.0, monotonic)
        read = [one for queue in led for one in self._read(queue, found.get(queue.name), live, samples, monotonic)]
        events = self._alarms.look(read, self._namespace, now)
        if events or (self._alarms.active and abs(now - self._stored) > FRESH / 3):
            await store(self._coordinator, self._namespace, names, self._alarms.active, now)
            self._stored = now
        return events

    def _read(
        self, queue: Queue, info: QueueInfo | None, live: Sequence[Report], samples: Samples, now: float
    ) -> list[Reading]:
        limits = self._limits.of(queue)
        return [
            *(readings.of_queue(queue.name, limits, info) if info is not None else ()),
            *readings.of_tasks(queue.name, limits, live, samples, self._usual, self._expected, now),
            *readings.of_workers(queue.name, limits, live, self._usual),
        ]

    async def _take_over(self, names: frozenset[str]) -> None:
        for queue in self._led - names:
            self._alarms.drop(queue)
        new = names - self._led
        if new:
            before = await raised(self._coordinator, self._namespace, self._clock.time())
            self._alarms.adopt(alarm for queue in new for alarm in before.get(queue, ()))
        self._led = names
