"""How fast queues drain, seen from this process: for `retry_after`, never for correctness."""

from __future__ import annotations

from collections.abc import Callable

from penstock.engines.sqlite.counting import Counters

MIN_RETRY, MAX_RETRY = 0.05, 60.0
"""Seconds."""


class Rates:
    """Samples how much a queue has worked off when somebody is refused, so that the next refusal knows the rate."""

    def __init__(self, counters: Counters, now: Callable[[], float]) -> None:
        self._counters = counters
        self._now = now
        self._samples: dict[int, tuple[float, int, float]] = {}

    def seconds_to_drain(self, queue: int, tasks: int) -> float:
        """About how long until `tasks` have left the queue; a guess of one second before anything is known."""
        settled = self._counters.worked_off(queue)
        now = self._now()
        then, before, rate = self._samples.get(queue, (now, settled, 0.0))
        elapsed = now - then
        if elapsed >= 0.2:
            rate = (settled - before) / elapsed
            then, before = now, settled
        self._samples[queue] = (then, before, rate)
        if rate <= 0:
            return 1.0
        return min(MAX_RETRY, max(MIN_RETRY, tasks / rate))
