"""A server that does not answer: said once, not at each try."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two tries: work goes on within seconds of the server's return."""

log = logging.getLogger("penstock.worker")


class Outage:
    """The state of one way to a server, of which several threads may tell."""

    def __init__(
        self,
        what: str,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`what` fails, as part of a sentence; `now` is monotonic, `jitter` between 0 and 1."""
        self._what = what
        self._now = now
        self._jitter = jitter
        self._since: float | None = None
        self._tries = 0

    def go_on(self, error: BaseException) -> float:
        """It failed (again). Returns the seconds to pause before the next try: doubling, half of each at random, so
        that many who lost the same server do not come back together."""
        if self._since is None:
            self._since = self._now()
            log.error("%s failed, and is tried again until it works: %s", self._what, error)
        else:
            log.debug("%s still fails: %s", self._what, error)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._tries, 10))
        self._tries += 1
        return pause * (0.5 + 0.5 * self._jitter())

    def lasts(self) -> float:
        """Seconds since it began; 0 when there is none."""
        since = self._since
        return 0.0 if since is None else self._now() - since

    def forget(self) -> None:
        """Nobody goes this way any more."""
        self._since, self._tries = None, 0

    def over(self) -> None:
        """It works."""
        since = self._since
        if since is not None:
            self.forget()
            log.warning("%s works again, after %.1f s", self._what, self._now() - since)
