"""All that is known of the pressure on the queues of a namespace: for the live view, and for metrics."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.clock import Clock
from penstock.coordinator import Shared
from penstock.engine import Engine
from penstock.pressure.alarms import Alarm
from penstock.pressure.law import rate, threads_of
from penstock.pressure.raised import raised
from penstock.pressure.readings import fullness, there
from penstock.pressure.refused import Refusal, counted
from penstock.pressure.refused import told as told_refusals
from penstock.pressure.reports import EXPIRES, Report, told
from penstock.pressure.samples import Samples, Times, merged
from penstock.queue import QueueInfo


class Outlook(Struct, frozen=True):
    """A queue. `None` is what is not known: `threads` work for it, `wait` is how many seconds a task that comes now
    waits and runs, `times` are how long its tasks take."""

    info: QueueInfo
    threads: float | None
    wait: float | None
    times: Times
    alarms: Sequence[Alarm]
    space: str | None = None
    """The namespace of the broker that it is in, where a broker tells of all of its own."""

    @property
    def full(self) -> float | None:
        """The larger part of its two bounds, 1 is full."""
        return fullness(self.info)


class Overview(Struct, frozen=True):
    """`samples` are those of all queues; `reports` those of the processes that told something lately; `refusals` are
    who was refused lately, by namespace, the last first."""

    at: float
    queues: Sequence[Outlook]
    reports: Sequence[Report]
    samples: Samples
    refusals: Sequence[tuple[str, Refusal]] = ()
    unread: Sequence[str] = ()
    """Namespaces of which it is not known who was refused."""


async def overview(engine: Engine, coordinator: Shared | None, clock: Clock, namespace: str | None) -> Overview:
    """`coordinator`: see `penstock.apart.shared`. `namespace` `None`: all."""
    infos = await engine.inspect.queues(namespace)
    now, queues, everybody, turned_away, unread = clock.time(), [], [], [], []
    for name in dict.fromkeys(info.namespace for info in infos):
        told_here = list((await told(coordinator, name)).values()) if coordinator is not None else []
        # The oldest that are kept say nothing of who lives; how long tasks took is the best that is known.
        live = [one for one in told_here if abs(now - one.at) <= EXPIRES / 4]
        samples = merged(one.samples for one in told_here)
        active = await raised(coordinator, name, now) if coordinator is not None else {}
        refusals = await told_refusals(coordinator, name, now) if coordinator is not None else None
        queues += [
            outlook(counted(info, refusals), live, samples, active.get(info.name, ()))
            for info in infos
            if info.namespace == name
        ]
        everybody += live
        turned_away += [(name, one) for one in refusals.lately] if refusals is not None else []
        unread += [name] if refusals is None else []
    return Overview(now, queues, everybody, merged(one.samples for one in everybody), turned_away, unread)


def outlook(info: QueueInfo, live: Sequence[Report], samples: Samples, alarms: Sequence[Alarm]) -> Outlook:
    times = samples.of_queue(info.name)
    threads = threads_of(info.name, (one.threads for one in live)) if live else None
    known = rate(times, threads, 0.0) if threads else None
    depth = there(info)
    waiting = None if depth is None else max(0, depth - (info.delayed or 0))
    if waiting == 0:
        wait: float | None = 0.0
    else:
        wait = waiting / known.per_second if known is not None and waiting is not None else None
    return Outlook(info, threads, wait, times, alarms)
