"""Back pressure in the upkeep of live workers: it tells what they have sampled, and lets the governor work."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.pressure.governor import Governor
from penstock.pressure.reports import Report, shard_name, shard_of, with_report
from penstock.pressure.samples import Samples, merged

if TYPE_CHECKING:
    from penstock.app import Penstock

EVERY = 1.0
SELDOM = 10.0
"""Seconds between two reports where no queue is governed: for those who plan."""
TRIES = 3
"""Others write into the same value."""


class Local(Struct, frozen=True):
    """What this process runs now: slots that live, and what each of its workers has sampled."""

    slots: int
    samples: list[Samples]


class Keeper:
    def __init__(self, app: Penstock, queues: tuple[str, ...], local: Callable[[], Local]) -> None:
        """`queues` are what the workers of this process serve."""
        conf = app.conf
        self._engine, self._clock, self._namespace = app.engine, app.clock, conf.namespace
        self._holder = secrets.token_hex(8)
        self._queues = queues
        self._local = local
        self._governed = [queue for queue in conf.queues if queue.governed]
        self._governor = Governor(app.engine, app.clock, conf.namespace, conf.pressure_grace, self._holder)
        self._samples = Samples()
        self._reported = float("-inf")

    async def tick(self, now: float) -> None:
        """About once a second; `now` is monotonic."""
        if not self._engine.broker.features.coordination:
            return
        if now - self._reported >= (EVERY / 2 if self._governed else SELDOM):
            self._reported = now
            await self._report()
        if self._governed:
            await self._governor.govern(self._governed)

    async def _report(self) -> None:
        local = self._local()
        before = self._samples
        # What a process knew that was replaced is still the best that is known.
        self._samples = merged(local.samples, before)
        same = self._samples.entries == before.entries and self._samples.expired == before.expired
        if not self._governed and same:
            return
        report = Report(self._clock.time(), local.slots, self._queues, self._samples)
        name = shard_name(self._namespace, shard_of(self._holder))
        coordinator = self._engine.coordinator
        for _ in range(TRIES):
            found = await coordinator.get(name)
            data, version = found or (None, None)
            if await coordinator.put(name, with_report(data, self._holder, report), version) is not None:
                return
