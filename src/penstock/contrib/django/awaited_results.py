"""Who waits for results in a table: one thread of the process looks for all of them, as long as there are any."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from penstock.backend import Notify
from penstock.errors import BrokerError
from penstock.outcome import Report

SOONEST, LATEST, GROWTH = 0.02, 0.5, 1.3
"""Seconds between looks: at first, at last, and the factor between two of them."""

log = logging.getLogger("penstock")


class Waiting:
    """What is waited for by one subscription."""

    def __init__(self, waits: Waits, keys: Sequence[str], notify: Notify) -> None:
        self._waits = waits
        self.left = dict.fromkeys(keys)
        self.notify = notify

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        self._waits.remove(self)


class Waits:
    """`look` fetches reports; `rest` is called by the thread before it ends."""

    def __init__(self, look: Callable[[Sequence[str]], Sequence[Report]], rest: Callable[[], None]) -> None:
        self._look = look
        self._rest = rest
        self._changed = threading.Condition()
        self._waiting: set[Waiting] = set()
        self._pause = SOONEST
        self._thread: threading.Thread | None = None

    def add(self, keys: Sequence[str], notify: Notify) -> Waiting:
        waiting = Waiting(self, keys, notify)
        with self._changed:
            self._waiting.add(waiting)
            self._hurry()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="penstock-django-results", daemon=True)
                self._thread.start()
        return waiting

    def remove(self, waiting: Waiting) -> None:
        with self._changed:
            self._waiting.discard(waiting)
            if not self._waiting:
                self._changed.notify()

    def hurry(self) -> None:
        """Something was stored here."""
        with self._changed:
            self._hurry()

    def close(self) -> None:
        with self._changed:
            self._waiting.clear()
            self._changed.notify()

    def _hurry(self) -> None:
        self._pause = 0.0
        self._changed.notify()

    def _run(self) -> None:
        outage = False
        try:
            while (keys := self._next()) is not None:
                try:
                    self._tell(self._look(keys))
                    outage = False
                except BrokerError as error:
                    if not outage:
                        log.warning("results cannot be looked up, and will be again: %s", error)
                    outage = True
        finally:
            self._rest()

    def _next(self) -> list[str] | None:
        """Waits until it is time to look; `None`: nobody waits any more."""
        with self._changed:
            if self._waiting:
                self._changed.wait(self._pause)
            if not self._waiting:
                self._thread = None
                return None
            self._pause = min(LATEST, max(SOONEST, self._pause * GROWTH))
            return list(dict.fromkeys(key for one in self._waiting for key in one.left))

    def _tell(self, reports: Sequence[Report]) -> None:
        ended = {one.id: one for one in reports if one.state.terminal}
        with self._changed:
            waiting = list(self._waiting)
        for one in waiting:
            told = [ended[key] for key in one.left if key in ended]
            for report in told:
                del one.left[report.id]
            if told:
                one.notify(told)
            if not one.left:
                self.remove(one)
