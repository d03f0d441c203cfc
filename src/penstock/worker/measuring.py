"""What a worker tells of itself as metrics: the sums of its processes, those that have ended included."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock import apart
from penstock.blocking import bounded
from penstock.errors import PenstockError
from penstock.metrics.counts import Counted, summed
from penstock.metrics.families import broker_up, of_queues, of_worker
from penstock.metrics.place import Place
from penstock.metrics.serving import MetricsThread
from penstock.metrics.text import Family
from penstock.pressure.overview import overview
from penstock.worker.tally import Pulse, Tally

if TYPE_CHECKING:
    from penstock.app import Penstock

PATIENCE = 3.0
"""Seconds for the broker's part of one scrape."""


class Measured(Struct, frozen=True):
    counts: dict[str, Counted]
    slots: int
    busy: int


class Ledger:
    """The tallies of processes that come and go. Thread-safe; its counts never go back."""

    def __init__(self, monotonic: Callable[[], float], slots: int) -> None:
        """`slots` are those of each process."""
        self._monotonic = monotonic
        self._slots = slots
        self._lock = threading.Lock()
        self._tallies: dict[Hashable, Tally] = {}
        self._last: dict[Hashable, Pulse] = {}
        """What each had told when it could last be read: it may be writing just now."""
        self._gone: dict[str, Counted] = {}

    def open(self, key: Hashable, tally: Tally) -> None:
        with self._lock:
            self._tallies[key] = tally

    def close(self, key: Hashable) -> None:
        """That process has ended: what it had counted stays."""
        with self._lock:
            self._read(key)
            del self._tallies[key]
            last = self._last.pop(key, None)
            if last is not None:
                self._gone = summed([self._gone, last.counts])

    def read(self) -> Measured:
        with self._lock:
            for key in self._tallies:
                self._read(key)
            pulses = list(self._last.values())
            counts = summed([self._gone, *(one.counts for one in pulses)])
            slots = self._slots * len(self._tallies)
        return Measured(counts, slots, sum(one.busy for one in pulses))

    def _read(self, key: Hashable) -> None:
        found = self._tallies[key].pulse(self._monotonic())
        if found is not None:
            self._last[key] = found


def metrics_of(app: Penstock, place: Place, ledger: Ledger) -> MetricsThread:
    """Listens from now on, and answers when it is started. Raises `ConfigError`."""

    async def collect() -> list[Family]:
        measured = ledger.read()
        own = of_worker(measured.counts, measured.slots, measured.busy)
        try:
            look = overview(app.engine, apart.shared(app), app.clock, app.conf.namespace)
            view = await app.engine.arun(bounded(look, PATIENCE, app.engine.url))
        except PenstockError:
            return [*own, broker_up(False)]
        return [*own, broker_up(True), *of_queues(view.queues)]

    return MetricsThread(place, collect)
