"""Waiting for parts by push: who waits for which, and whether there is more than at the last look."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence

from penstock.broker import Key
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.looking import Lookup
from penstock.engines.sqlite.streams import Streams
from penstock.engines.sqlite.watching import Watch
from penstock.outcome import Report

log = logging.getLogger("penstock.engine")


class Ear:
    """One subscription to the parts of a task, and to its end."""

    def __init__(self, key: Key, notify: Callable[[], None], forget: Callable[[Ear], None]) -> None:
        self.key = key
        self.row = key if isinstance(key, int) else None
        self.end: int | None = None
        """The next index at the last look; `None`: nobody has looked."""
        self.watch: Watch | None = None
        """For the end of the task."""
        self._notify = notify
        self._forget = forget
        self._closed = False

    def told(self, reports: Sequence[Report] = ()) -> None:
        if self._closed:
            return
        try:
            self._notify()
        except Exception:  # its loop was closed just now: the others still want to know
            log.debug("somebody who waited for parts is gone", exc_info=True)

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        self._closed = True
        self._forget(self)
        if self.watch is not None:
            self.watch.close()


class Ears:
    """Who waits for which parts. Thread-safe."""

    def __init__(self, db: Database, lookup: Lookup, streams: Streams) -> None:
        self._db, self._lookup, self._streams = db, lookup, streams
        self._lock = threading.Lock()
        self._ears: list[Ear] = []

    def add(self, key: Key, notify: Callable[[], None]) -> Ear:
        ear = Ear(key, notify, self._drop)
        with self._lock:
            self._ears.append(ear)
        return ear

    def look(self) -> None:
        """Tell those for whose task something was added since the last look; at the first one, whatever is there."""
        with self._lock:
            ears = list(self._ears)
        if not ears:
            return
        ends = self._db.read(lambda: [self._end(one) for one in ears])
        for ear, end in zip(ears, ends, strict=True):
            if end != (ear.end or 0):
                ear.end = end
                ear.told()

    def _end(self, ear: Ear) -> int:
        if ear.row is None:
            ear.row = self._lookup.row(ear.key)
        return 0 if ear.row is None else self._streams.end(ear.row)

    def _drop(self, ear: Ear) -> None:
        with self._lock, contextlib.suppress(ValueError):  # closed twice
            self._ears.remove(ear)
