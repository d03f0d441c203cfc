"""How many retries a process has after `QueueFull`: a part of what it publishes. Pure.

Callers who try again are load that the overload makes by itself: each of them with a few tries multiplies it, and a
queue that could have worked itself free never does. So what a process may repeat is a part of what it publishes,
whoever in it asks.
"""

from __future__ import annotations

from msgspec import Struct

SECONDS = 10
"""Of which the publishes count."""
LEAST = 1.0
"""Retries a second that there are anyway, so that a process that seldom publishes may try again, too."""


class _Second(Struct):
    number: int = -1
    published: int = 0
    retried: int = 0


class RetryBudget:
    """Each publish earns a part of a retry, which is spent or lost within `SECONDS`. Counts of several threads may miss
    one now and then, which is a retry more or less."""

    def __init__(self, part: float | None) -> None:
        """`part`: retries for each publish; `None`: there is no bound."""
        self._part = part
        self._seconds = [_Second() for _ in range(SECONDS)]

    def published(self, now: float) -> None:
        """A call was published for the first time, whether or not it was let in. `now` is monotonic."""
        self._of(now).published += 1

    def spend(self, now: float) -> bool:
        """Whether one may be tried again; it counts as tried then."""
        if self._part is None:
            return True
        second = self._of(now)
        recent = [one for one in self._seconds if second.number - one.number < SECONDS]
        earned = max(LEAST * SECONDS, self._part * sum(one.published for one in recent))
        if sum(one.retried for one in recent) + 1 > earned:
            return False
        second.retried += 1
        return True

    def _of(self, now: float) -> _Second:
        number = int(now)
        second = self._seconds[number % SECONDS]
        if second.number != number:
            second.number, second.published, second.retried = number, 0, 0
        return second
