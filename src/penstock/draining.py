"""How fast a queue drains now, from readings of how many tasks have left it, and what a refused caller is told. Pure.

The truth that `retry_after` is measured by: the time until so many tasks have left the queue, from the refusal on, that
there is room for the call, and for a few of those that were refused beside it (`FEW`, and half the queue at most). For
the very next task to leave nothing could be told: when that is, is chance.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

MIN_RETRY, MAX_RETRY, FIRST_RETRY = 0.05, 60.0, 1.0
"""Seconds of `Full.retry_after`, but for the jitter: at least, at most, and where no rate is known."""
FEW = 24
"""The time that so many tasks take to leave is within half of its mean in nine cases of ten, whatever their times."""
JITTER = 0.1
"""What is told is more or less by so much, so that those who were refused at once do not come back at once."""
SPACING, SHORTEST = 0.25, 0.1
"""Seconds between two readings that are kept, and of the shortest time that gives a rate."""
RECENT, OLDEST = 1.0, 30.0
"""A rate is that of the last second; where few tasks left in that, of as long as it takes, up to `OLDEST` seconds."""
MOST = 1_000
"""Queues of which readings are kept."""


class Reading(NamedTuple):
    at: float
    settled: int
    depth: float


class Drain:
    """The recent rate of one queue."""

    def __init__(self, gap: float) -> None:
        """Between readings that are further apart than `gap` seconds the queue may have been empty, unless fewer left
        than were there; then they say nothing of how fast it could be."""
        self._gap = gap
        self._readings: deque[Reading] = deque()

    def read(self, now: float, settled: int, depth: int | None) -> float | None:
        """Note that `settled` tasks have left at `now` since the queue exists, and `depth` are there (`None`: it is
        full). Returns tasks a second; `None` where that is not known, or none left."""
        readings = self._readings
        if readings and not self._follows(readings[-1], now, settled):
            readings.clear()
        while readings and now - readings[0].at > OLDEST:
            readings.popleft()
        rate = self._rate(now, settled)
        if not readings or now - readings[-1].at >= SPACING:
            readings.append(Reading(now, settled, float("inf") if depth is None else depth))
        return rate

    def _follows(self, last: Reading, now: float, settled: int) -> bool:
        """Whether the queue was never empty since. Where its count is less, or it is earlier, it is another queue, or
        another clock."""
        left, elapsed = settled - last.settled, now - last.at
        return left >= 0 and 0 <= elapsed <= OLDEST and (elapsed <= self._gap or left <= last.depth)

    def _rate(self, now: float, settled: int) -> float | None:
        found = None
        for reading in reversed(self._readings):
            if now - reading.at >= SHORTEST:
                found = reading
                if now - reading.at >= RECENT and settled - reading.settled >= FEW:
                    break
        if found is None or settled == found.settled:
            return None
        return (settled - found.settled) / (now - found.at)


def retry_after(rate: float | None, excess: int, depth: int, chance: float) -> float:
    """Seconds that a refused caller is told. `excess`: tasks that have to leave before his fit; `depth`: tasks in the
    queue; `chance`: from 0 to 1."""
    wait = FIRST_RETRY
    if rate is not None:
        wait = min(MAX_RETRY, max(MIN_RETRY, leaving(excess, depth) / rate))
    return wait * (1.0 + JITTER * (2.0 * chance - 1.0))


def leaving(excess: int, depth: int) -> int:
    """How many tasks have to leave until it is worth another try."""
    return max(1, excess, min(FEW, depth // 2))


class Drains:
    """Of the queues of one engine, read when somebody is refused."""

    GAP = 2.0
    """Seconds: who is refused this often sees a queue that is full all the time."""

    def __init__(self, now: Callable[[], float], rng: Callable[[], float] = random.random) -> None:
        self._now = now
        self._rng = rng
        self._drains: dict[Hashable, Drain] = {}

    def retry_after(self, queue: Hashable, settled: int, excess: int, depth: int) -> float:
        """What to tell who was refused for want of room for `excess` tasks; see `retry_after`."""
        drain = self._drains.get(queue)
        if drain is None:
            if len(self._drains) >= MOST:
                self._drains.clear()
            drain = self._drains[queue] = Drain(self.GAP)
        return retry_after(drain.read(self._now(), settled, None), excess, depth, self._rng())
