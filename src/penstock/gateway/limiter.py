"""How many requests an application takes at a time, by Little's law: what is in it = its throughput × their stay.

Who wants a request to stay no longer than `target` seconds may let in no more than throughput × `target`. The
throughput is measured; so there is no number to guess, and a slower database makes the limit smaller by itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from penstock.errors import ConfigError

WINDOW = 1.0
"""Seconds over which requests are counted, before they are an average."""
WEIGHT = 0.3
"""Of the newest window in that average."""


class LittlesLaw:
    """Thread-safe. One for each application."""

    def __init__(
        self, target: float = 1.0, least: int = 8, most: int = 1_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`target`: seconds that a request should stay at most. Between `least` and `most` are always let in at a time:
        something must run for a throughput to be known. Raises `ConfigError`."""
        if not 0 < target < math.inf or not 1 <= least <= most:
            raise ConfigError(
                f"a limiter needs a target above 0 seconds, and 1 ≤ least ≤ most, not {target!r}, {least!r}, {most!r}"
            )
        self._target, self._least, self._most, self._now = target, least, most, now
        self._lock = threading.Lock()
        self._began = now()
        self._ended = 0
        self._busy = False
        self.inside = 0
        self.throughput = 0.0
        """Requests a second."""

    @property
    def limit(self) -> int:
        """How many may be inside now."""
        return max(self._least, min(self._most, int(self.throughput * self._target)))

    def enter(self) -> float | None:
        """`None`: come in, and `leave` later. Else: seconds after which there should be room."""
        with self._lock:
            limit = self.limit
            if self.inside >= limit:
                self._busy = True
                return max(1.0, (self.inside - limit + 1) / self.throughput if self.throughput else self._target)
            self.inside += 1
            return None

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1
            self._ended += 1
            self._count()

    def _count(self) -> None:
        now = self._now()
        span = now - self._began
        if span < WINDOW:
            return
        rate = self._ended / span
        # Without a crowd fewer come than could be served: that is no reason to take fewer.
        if self._busy or self.inside >= self.limit or rate > self.throughput:
            self.throughput = rate if not self.throughput else WEIGHT * rate + (1 - WEIGHT) * self.throughput
        self._began, self._ended, self._busy = now, 0, False
