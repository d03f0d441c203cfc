"""How long to try, and how long to pause between two tries: full jitter under one total deadline."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

FIRST, LONGEST = 0.05, 2.0


def pauses(
    first: float = FIRST, longest: float = LONGEST, jitter: Callable[[], float] = random.random
) -> Iterator[float]:
    """Seconds to pause before each further try: doubling, half of each at random, so that many who lost the same
    server do not come back together."""
    pause = first
    while True:
        yield pause * (0.5 + 0.5 * jitter())
        pause = min(pause * 2, longest)


class Deadline:
    """The end of one call's time."""

    __slots__ = ("_now", "end")

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        """`now` is monotonic."""
        self._now = now
        self.end = now() + seconds

    def left(self) -> float:
        """Seconds; 0 when it has passed."""
        return max(0.0, self.end - self._now())

    def passed(self) -> bool:
        return self._now() >= self.end
