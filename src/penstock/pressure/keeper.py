"""Back pressure in the upkeep of live workers: they tell what they have sampled, and who leads for a queue sets its
bound and raises its alarms."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock import apart
from penstock.errors import AccessRefused
from penstock.pressure.ages import Ages
from penstock.pressure.election import Election
from penstock.pressure.governor import Governor
from penstock.pressure.monitor import Monitor
from penstock.pressure.readings import calm, limits_of
from penstock.pressure.reports import Report, Standing, Watch, shard_name, shard_of, told, with_report
from penstock.pressure.samples import Samples, merged
from penstock.pressure.telling import Teller
from penstock.queue import Queue, QueueInfo, only_worker

if TYPE_CHECKING:
    from penstock.app import Penstock

EVERY = 1.0
CALM = 2.0
"""Seconds between two reports, and between two looks, where no bound is to be set and nothing is the matter."""
REFUSED = 600.0
"""Seconds until it is tried again where the shared state is not for this user."""
SILENT = 5.0
"""Seconds after which threads that nobody tells of are not counted any more."""
LONG = 1.0
"""Seconds from which on it is told what runs."""
MOST_STANDING = 8
TRIES = 3
"""Others write into the same value."""

log = logging.getLogger("penstock.worker")


class Local(Struct, frozen=True):
    """What this process runs now: slots that live, how many of them are busy, what each of its workers has sampled, and
    what those do that run something, those too that are stopped."""

    slots: int
    samples: list[Samples]
    busy: int = 0
    standing: Sequence[Standing] = ()


class Keeper:
    def __init__(self, app: Penstock, queues: tuple[str, ...], local: Callable[[], Local], name: str = "") -> None:
        """`queues` are what the workers of this process serve, `name` is theirs."""
        conf = app.conf
        self._engine, self._clock, self._namespace = app.engine, app.clock, conf.namespace
        self._holder = secrets.token_hex(8)
        self._queues = queues
        self._local = local
        self._name = name
        self._watched = watched(conf.queues, queues)
        self._governed = any(queue.governed for queue in self._watched)
        shared, namespace = apart.shared(app), conf.namespace
        self._works = shared is not None
        coordinator = self._coordinator = shared or app.engine.coordinator
        self._election = Election(coordinator, namespace, self._holder)
        self._governor = Governor(app.engine, coordinator, app.clock, namespace, conf.pressure_grace)
        self._monitor = Monitor(coordinator, app.clock, namespace, limits_of(conf), _expected(app))
        self._teller = Teller(app.pressure_hooks, conf.pressure_webhook, app.name)
        self._watch, self._ages = Watch(SILENT), Ages()
        self._told, self._samples = Samples(), Samples()
        """What this process has told, and what is known of all."""
        self._reported = self._looked = float("-inf")
        self._leading = self._busy = False
        self._rests_until = float("-inf")

    async def tick(self, now: float) -> None:
        """About once a second; `now` is monotonic."""
        if not self._works or now < self._rests_until:
            return
        try:
            await self._work(now)
        except AccessRefused as error:
            if self._governed:
                raise
            # Nobody has asked for alarms: whoever keeps them from this user is not to be pestered.
            self._rests_until = now + REFUSED
            log.warning("no alarms and no samples for penstock plan: %s", error)

    async def _work(self, now: float) -> None:
        if now - self._reported >= (EVERY / 2 if self._governed else CALM):
            self._reported = now
            await self._report()
        if now - self._looked >= (EVERY / 2 if self._governed or self._leading else CALM):
            self._looked = now
            await self._look(now)

    def close(self) -> None:
        """Tell what is still to be told."""
        self._teller.close()

    async def _look(self, now: float) -> None:
        found: dict[str, QueueInfo] | None = None
        led = []
        for queue in self._watched:
            if not queue.governed:
                # Looks before it claims: an idle system writes nothing.
                found = found if found is not None else await self._found()
                if self._idle(found.get(queue.name)):
                    self._election.forget(queue)
                    continue
            if await self._election.leads(queue, now):
                led.append(queue)
        self._leading = bool(led)
        if not led and self._monitor.quiet:
            self._samples, self._watch = Samples(), Watch(SILENT)
            return
        found = found if found is not None else await self._found()
        live = await self._live()
        found = self._aged(found)
        await self._governor.govern([queue for queue in led if queue.governed], found, live, self._samples)
        for event in await self._monitor.look(led, found, live, self._samples):
            self._teller.tell(event)

    def _idle(self, info: QueueInfo | None) -> bool:
        if info is not None and info.leased is None and self._busy:
            return False  # where it is not told what runs, those look who run something
        return self._monitor.quiet and (info is None or calm(info))

    async def _found(self) -> dict[str, QueueInfo]:
        found = await self._engine.inspect.queues(self._namespace)
        self._ages.note(found, self._clock.monotonic())
        return {one.name: one for one in found}

    def _aged(self, found: Mapping[str, QueueInfo]) -> dict[str, QueueInfo]:
        heads, wall, now = self._samples.heads, self._clock.time(), self._clock.monotonic()
        return {name: self._ages.aged(info, heads.get(name), wall, now) for name, info in found.items()}

    async def _live(self) -> list[Report]:
        reports = await told(self._coordinator, self._namespace)
        live = self._watch.live(reports, self._clock.monotonic(), self._clock.time())
        self._samples = merged((one.samples for one in live), self._samples)
        return live

    async def _report(self) -> None:
        local = self._local()
        self._busy = bool(local.busy or local.standing)
        before = self._told
        # What a process knew that was replaced is still the best that is known.
        self._told = merged(local.samples, before)
        idle = not local.busy and not local.standing
        if not self._governed and idle and self._told.entries == before.entries:
            return
        long = [one for one in local.standing if any(run.seconds >= LONG for run in one.runs)]
        standing = sorted(long, key=lambda one: one.still, reverse=True)[:MOST_STANDING]
        report = Report(
            self._clock.time(),
            local.slots,
            self._queues,
            self._told,
            self._name or self._holder,
            local.busy,
            standing,
            os.getpid(),
        )
        name = shard_name(self._namespace, shard_of(self._holder))
        coordinator = self._coordinator
        for _ in range(TRIES):
            found = await coordinator.get(name)
            data, version = found or (None, None)
            if await coordinator.put(name, with_report(data, self._holder, report), version) is not None:
                return


def watched(declared: Sequence[Queue], served: Sequence[str]) -> tuple[Queue, ...]:
    """The queues that a process can lead for: those of its app, and those that it serves, but for what one worker alone
    serves."""
    names: Mapping[str, Queue] = {queue.name: queue for queue in declared}
    others = [Queue(name) for name in served if name not in names and only_worker(name) is None]
    return (*declared, *others)


def _expected(app: Penstock) -> Callable[[str], float | None]:
    def of(task: str) -> float | None:
        found = app.tasks.get(task)
        return found.options.expected if found is not None else None

    return of
