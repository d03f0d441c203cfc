"""Waiting for parts by push: who waits for which, and whether there is more than at the last look."""

from __future__ import annotations

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
        """As `Store.watched` has it."""
        self.watch: Watch | None = None
        """For the end of the task."""
        self.rung = False
        """Told of more, and has not read since: it need not be told again."""
        self._notify = notify
        self._forget = forget
        self._closed = False

    def tell(self, reports: Sequence[Report] = ()) -> None:
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
        self._ears: dict[Key, list[Ear]] = {}
        self._named = 0
        """How many of them know their task by an id that its caller chose."""
        self._ends: dict[Key, int] = {}
        """The next index of each at the last look."""

    def add(self, key: Key, notify: Callable[[], None]) -> Ear:
        ear = Ear(key, notify, self._drop)
        with self._lock:
            self._ears.setdefault(key, []).append(ear)
            self._named += isinstance(key, str)
        return ear

    def look(self) -> None:
        """Tell those for whose task something was added since the last look; at the first one, whatever is there."""
        with self._lock:
            keys = list(self._ears)
        if not keys:
            return
        ends = self._db.read(lambda: [self._end(key) for key in keys])
        for key, end in zip(keys, ends, strict=True):
            if end != self._ends.get(key, 0):
                self._ends[key] = end
                self.tell(key)

    def tell(self, key: Key) -> None:
        """Something was added to this task. `key` as `Store.watched` has it."""
        with self._lock:
            ears = [ear for ear in self._ears.get(key, ()) if not ear.rung]
        for ear in ears:
            ear.rung = True
            ear.tell()

    def added(self, row: int) -> None:
        """The same of a row, also to those who know it by the id that its caller chose."""
        self.tell(row)
        if self._named:
            names = self._db.read(lambda: self._db.query("SELECT name FROM alias WHERE id = ?", (row,)).fetchall())
            for (name,) in names:
                self.tell(name)

    def heard(self, key: Key) -> None:
        """Somebody is about to read what there is: from now on there may be more."""
        for ear in self._ears.get(key, ()):
            ear.rung = False

    def _end(self, key: Key) -> int:
        row = self._lookup.row(key)
        return 0 if row is None else self._streams.end(row)

    def _drop(self, ear: Ear) -> None:
        with self._lock:
            before = self._ears.get(ear.key, ())
            ears = [one for one in before if one is not ear]
            if isinstance(ear.key, str):
                self._named -= len(before) - len(ears)
            if ears:
                self._ears[ear.key] = ears
            else:
                self._ears.pop(ear.key, None)
                self._ends.pop(ear.key, None)
