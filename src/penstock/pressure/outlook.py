"""How long a queue is, and how fast it drains, as a caller knows it: when would a call start that is made now? Pure."""

from __future__ import annotations

from penstock.draining import Drain
from penstock.queue import QueueInfo


class Outlook:
    """Of one queue, from readings about every half second while somebody asks."""

    FRESH = 10.0
    """Seconds for which a rate counts that is not confirmed: workers may have come."""

    def __init__(self) -> None:
        # A caller does not know whether the queue was empty between two looks: only what was there and left tells how
        # fast it can be.
        self._drain = Drain(gap=0.0)
        self._rate: float | None = None
        self._known = float("-inf")
        self.depth = self.limit = 0

    def note(self, info: QueueInfo, now: float) -> None:
        """`now` is monotonic."""
        self.limit = info.max_length
        self.depth = max(0, (info.depth or 0) - (info.delayed or 0))
        if info.settled is None:
            return
        rate = self._drain.read(now, info.settled - info.shed, self.depth)  # what made room was not worked off
        if rate is not None:
            self._rate, self._known = rate, now

    def wait(self, now: float) -> float | None:
        """Seconds until a call would start that is published now; `None` without a live rate."""
        if self._rate is None or now - self._known > self.FRESH:
            return None
        return self.depth / self._rate
