"""What `penstock watch` sees, one look after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock import apart
from penstock.cli.show_queues import Rates, rates_of
from penstock.errors import Unsupported
from penstock.outcome import Report, State
from penstock.queue import QueueInfo

if TYPE_CHECKING:
    from penstock.app import Penstock

MOST = 200
"""Tasks of a queue that are looked at to find the running ones."""


class View(Struct, frozen=True):
    """One look: `reports` of the tasks asked for, else of all that run."""

    url: str
    queues: Sequence[QueueInfo]
    rates: dict[tuple[str, str], Rates]
    reports: Sequence[Report]
    workers: dict[str, str]
    """Id → name of the workers that live."""


def look(app: Penstock, namespace: str | None, ids: Sequence[str], interval: float) -> Iterator[View]:
    """What is to be seen, every `interval` seconds; with `ids` until all have ended."""
    engine = app.engine
    before: Sequence[QueueInfo] = []
    measured = time.monotonic()
    rates: dict[tuple[str, str], Rates] = {}
    # Where it is not known what waits, an unknown id may still end.
    knows = apart.knows_waiting(engine, app.results) or not app.keeps_results
    while True:
        queues = engine.run(engine.inspect.queues(namespace))
        seconds = time.monotonic() - measured
        if not before or seconds >= 1.0:  # over less than that, a rate only flickers
            rates = rates_of(before, queues, seconds) if before else {}
            before, measured = queues, time.monotonic()
        workers = {worker.id: worker.name for worker in engine.run(engine.coordinator.workers())}
        reports = apart.drive(apart.reports(engine, app.results, ids)) if ids else running(app, queues)
        yield View(engine.url, queues, rates, reports, workers)
        if ids and all(report.state.terminal or (report.state is State.UNKNOWN and knows) for report in reports):
            return
        time.sleep(interval)


def running(app: Penstock, queues: Sequence[QueueInfo]) -> list[Report]:
    """The tasks that run now, of the first ones in each queue; none where the engine does not tell."""
    engine = app.engine
    leased: list[str] = []
    for queue in queues:
        if queue.leased != 0:
            try:
                peeked = engine.run(engine.inspect.peek(queue.name, MOST, queue.namespace))
            except Unsupported:
                return []
            leased += [one.id for one in peeked if one.state == "leased"]
    reports = apart.drive(apart.reports(engine, app.results, leased)) if leased else []
    return [report for report in reports if report.state is State.STARTED]
