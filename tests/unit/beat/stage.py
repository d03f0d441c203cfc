"""Beats under a clock that tests move, on the memory engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from penstock import Penstock
from penstock.beat.beat import Beat
from penstock.broker import Demand
from penstock.delivery import ACK, Settlement

START = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()


class WallClock:
    """Wall time that can be set, beside monotonic time that cannot."""

    def __init__(self, now: float = START) -> None:
        self.wall, self._monotonic = now, 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self._monotonic += seconds


def sharing(app: Penstock, other: Penstock) -> None:
    """`other` has the broker of `app`, as a second machine would."""
    other._engine, other._broker = app.engine, app.broker


class Machines:
    """Beats that live on one clock, each turn of which is taken in order."""

    def __init__(self, clock: WallClock, *beats: Beat) -> None:
        self.clock, self.beats = clock, list(beats)
        self._due = dict.fromkeys(self.beats, 0.0)

    def run(self, seconds: float) -> None:
        """Let so many seconds pass. Each beat has its turn exactly when it wants it."""
        end = self.clock.monotonic() + seconds
        while True:
            for beat in self.beats:
                self._due.setdefault(beat, 0.0)
            beat = min(self.beats, key=lambda one: self._due[one])
            if self._due[beat] > end:
                break
            self.clock.advance(max(0.0, self._due[beat] - self.clock.monotonic()))
            self._due[beat] = self.clock.monotonic() + max(beat.turn(), 1e-3)
        self.clock.advance(max(0.0, end - self.clock.monotonic()))


def published(app: Penstock, queue: str = "default") -> list[str]:
    """The ids of all that wait, in the order in which they came."""
    return [one.id for one in app.engine.run(app.engine.inspect.peek(queue, 100_000))]


def drain(app: Penstock, queue: str = "default") -> list[str]:
    """Take and acknowledge all that is ready, and forget it. Returns the ids."""
    engine, found = app.engine, list[str]()
    while True:
        demand = Demand((queue,), 1000, "w" * 32, namespace=app.conf.namespace)
        deliveries = engine.run(app.broker.step([], demand)).deliveries
        if not deliveries:
            return found
        found += [app.broker.public_id(one.key) for one in deliveries]
        engine.run(app.broker.step([Settlement(one.receipt, ACK, None) for one in deliveries], None))


def times(ids: Sequence[str]) -> list[str]:
    """When the ticks of these ids were, as hours, minutes and seconds of UTC."""
    return [one.rpartition("@")[2].partition("T")[2] for one in ids]


def warnings(records: Sequence[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]
