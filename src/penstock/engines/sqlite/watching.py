"""Waiting for results by push: who waits, and one thread per engine, rung by whoever commits a result."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from msgspec import Raw

from penstock.backend import Notify
from penstock.broker import Key
from penstock.engines.sqlite.bells import Bell
from penstock.engines.sqlite.board import Board
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.looking import Lookup
from penstock.engines.sqlite.results import PackedRun
from penstock.errors import DecodeError, PenstockError
from penstock.outcome import Report
from penstock.outcome_runs import read_entry, read_run

FEW = 16
"""Up to this many awaited tasks are looked up one by one; for more, the new results are read instead."""
AT_ONCE = 64
"""Results, or runs of them, that are held in memory together: each may have megabytes."""
LOOK_AGAIN = 1.0
"""Seconds without a ring after which the thread looks by itself: it covers a writer that died between commit and
ring."""
PAUSE = 0.003
"""Seconds between looks while many are awaited, so that watching does not slow the work down."""

log = logging.getLogger("penstock.engine")


class Watch:
    """One subscription."""

    def __init__(self, notify: Notify, forget: Callable[[Watch], None]) -> None:
        self.notify = notify
        self.rows: set[int] = set()
        self.names: set[str] = set()
        self._forget = forget

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        self._forget(self)


class Watches:
    """Who waits for which results. Thread-safe."""

    def __init__(self, db: Database, lookup: Lookup) -> None:
        self._db = db
        self._lookup = lookup
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._by_row: dict[int, list[Watch]] = {}
        self._by_name: dict[str, list[Watch]] = {}
        self._names: OrderedDict[str, None] = OrderedDict()
        """Ids that are no row's, in the order in which they are tried."""
        self._fresh: list[Watch] = []
        self._last_run: int | None = None
        """The newest run that was looked at; `None`: whoever waits now is looked up for himself first."""

    def add(self, keys: Sequence[Key], notify: Notify) -> Watch:
        """What has ended already is told at the next `look`."""
        watch = Watch(notify, self._forget)
        for key in keys:
            row = key if isinstance(key, int) else None
            if row is None:
                watch.names.add(str(key))
            else:
                watch.rows.add(row)
        with self._lock:
            if not self._watches:
                self._last_run = None
            self._watches.add(watch)
            self._fresh.append(watch)
            for row in watch.rows:
                self._by_row.setdefault(row, []).append(watch)
            for name in watch.names:
                self._by_name.setdefault(name, []).append(watch)
                self._names[name] = None
                self._names.move_to_end(name, last=False)
        return watch

    @property
    def names_awaited(self) -> bool:
        """Somebody waits for an id that is no row's: a look finds it, should nobody tell."""
        return bool(self._by_name)

    def state(self) -> tuple[bool, bool]:
        """Whether anybody waits, and whether for many tasks."""
        with self._lock:
            return bool(self._watches), len(self._by_row) > FEW

    def _forget(self, watch: Watch) -> None:
        with self._lock:
            self._watches.discard(watch)
            for row in watch.rows:
                waiting = self._by_row.get(row, [])
                if watch in waiting:
                    waiting.remove(watch)
                if not waiting:
                    self._by_row.pop(row, None)
            for name in watch.names:
                others = [one for one in self._by_name.get(name, []) if one is not watch]
                if others:
                    self._by_name[name] = others
                else:
                    self._by_name.pop(name, None)

    def _newest_run(self) -> int:
        row = self._db.read(lambda: self._db.query("SELECT max(run) FROM result").fetchone())
        return row[0] or 0

    def look(self, ended: Collection[int] = (), names: int | None = None) -> None:
        """Find what has ended since the last look, and tell. `ended`: rows that may have left no result. `names`: how
        many of the ids that are no row's are tried; all without."""
        with self._lock:
            fresh, self._fresh = self._fresh, []
            few = len(self._by_row) <= FEW
            rows = list(self._by_row) if few else [row for watch in fresh for row in watch.rows]
            rows += [row for row in ended if row in self._by_row]
            named = bool(self._by_name)
        self._resolve(names)
        for row in ended if named else ():
            for name, _ in self._names_of(row, row):
                self._look_for(name)
        if self._last_run is None:
            self._last_run = self._newest_run()
        for start in range(0, len(rows), AT_ONCE):
            self._tell(self._db.read(lambda some=rows[start : start + AT_ONCE]: self._ended(some)))  # type: ignore[misc]  # mypy: lambda default
        if not few:
            self._tell_new()

    def _ended(self, rows: Sequence[int]) -> dict[int, Report]:
        found = [(row, self._report(row)) for row in rows if self._lookup.may_have_ended(row)]
        return {row: report for row, report in found if report is not None and report.state.terminal}

    def tell_runs(self, runs: Sequence[PackedRun]) -> None:
        """Tell of outcomes that were just stored, without reading them again."""
        ended: dict[int, Report] = {}
        with self._lock:
            awaited = [
                (row, low, worker, packed)
                for low, high, worker, packed in runs
                for row in (range(low, high + 1) if high - low < len(self._by_row) else list(self._by_row))
                if row in self._by_row and low <= row <= high
            ]
        for row, low, worker, packed in awaited:
            with contextlib.suppress(DecodeError):  # see `_report`
                report = self._stored(row, worker, read_run(packed)[row - low])
                if report is not None:
                    ended[row] = report
        if ended:
            self._tell(ended)
        for low, high, worker, packed in runs if self._by_name else ():
            for name, row in self._names_of(low, high):
                with contextlib.suppress(DecodeError):
                    report = self._stored(row, worker, read_run(packed)[row - low])
                    if report is not None:
                        self._tell_name(name, report)

    def _stored(self, row: int, worker: str, entry: Raw) -> Report | None:
        read = read_entry(entry, worker)
        if read is None:
            return None
        task, _, outcome = read
        return Report(self._lookup.public_id(row), outcome.state, outcome, task, None, outcome.retries, worker)

    def _resolve(self, most: int | None) -> None:
        """Names become row ids once their task is there: up to `most` are tried, those first that never were."""
        with self._lock:
            count = len(self._names) if most is None else min(most, len(self._names))
            names = [self._names.popitem(last=False)[0] for _ in range(count)]
            names = [name for name in names if name in self._by_name]
            self._names.update(dict.fromkeys(names))
        for name in names:
            self._look_for(name)

    def _look_for(self, name: str) -> None:
        report = self._db.read(lambda: self._report(name))
        if report is not None and report.state.terminal:
            self._tell_name(name, report)

    def _tell_name(self, name: str, report: Report) -> None:
        with self._lock:
            waiting = self._by_name.pop(name, [])
            for watch in waiting:
                watch.names.discard(name)
        for watch in waiting:
            _notify(watch, [report])

    def _names_of(self, low: int, high: int) -> list[tuple[str, int]]:
        """Of these rows, the chosen ids for which somebody waits."""
        found = self._db.read(
            lambda: self._db.query("SELECT name, id FROM alias WHERE id BETWEEN ? AND ?", (low, high)).fetchall()
        )
        return [(name, row) for name, row in found if name in self._by_name]

    def _report(self, key: Key) -> Report | None:
        """`None` for a damaged result: who waits for it asks by himself, and is told; the others are not held up."""
        try:
            return self._lookup.report(key)
        except (DecodeError, UnicodeDecodeError):
            return None

    def _tell_new(self) -> None:
        runs = self._db.read(
            lambda: self._db.query(
                "SELECT run, lo, hi FROM result WHERE run > ? ORDER BY run", (self._last_run,)
            ).fetchall()
        )
        for start in range(0, len(runs), AT_ONCE):
            self._tell(self._db.read(lambda some=runs[start : start + AT_ONCE]: self._new_results(some)))  # type: ignore[misc]  # mypy: lambda default

    def _new_results(self, runs: Sequence[tuple[int, int, int]]) -> dict[int, Report]:
        ended: dict[int, Report] = {}
        for run, low, high in runs:
            self._last_run = run
            wanted = [row for row in range(low, high + 1) if row in self._by_row]
            found = self._db.query("SELECT worker, v FROM result WHERE run = ?", (run,)).fetchone() if wanted else None
            if found is None:
                continue
            worker, value = found
            with contextlib.suppress(DecodeError):  # see `_report`
                entries = read_run(value)
                for row in wanted:
                    report = self._stored(row, worker, entries[row - low])
                    if report is not None:
                        ended[row] = report
        return ended

    def _tell(self, ended: dict[int, Report]) -> None:
        told: dict[Watch, list[Report]] = {}
        with self._lock:
            for row, report in ended.items():
                for watch in self._by_row.pop(row, ()):
                    watch.rows.discard(row)
                    told.setdefault(watch, []).append(report)
        for watch, reports in told.items():
            _notify(watch, reports)


def _notify(watch: Watch, reports: Sequence[Report]) -> None:
    try:
        watch.notify(reports)
    except Exception:  # its loop was closed just now: the others still want to know
        log.debug("somebody who waited for results is gone", exc_info=True)


class Watcher:
    """The thread of an embedded engine."""

    def __init__(self, watches: Watches, look_for_parts: Callable[[], None], board: Board, bell: Bell) -> None:
        """Who waits for parts waits for a result as well: `look_for_parts` is called when the others look."""
        self._watches = watches
        self._look_for_parts = look_for_parts
        self._board = board
        self._bell = bell
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def subscribe(self, keys: Sequence[Key], notify: Notify) -> Watch:
        watch = self._watches.add(keys, notify)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="penstock-results", daemon=True)
                self._thread.start()
        self._bell.ring()
        return watch

    def _run(self) -> None:
        while not self._closed:
            self._bell.empty()
            waiting, many = self._watches.state()
            self._board.wait_for_results(waiting)
            try:
                if waiting:
                    self._watches.look()
                    self._look_for_parts()
            except PenstockError:
                pass  # the callers' own calls meet the same error, and tell it
            except Exception:
                log.exception("looking for results failed, again in %.0f s", LOOK_AGAIN)  # others wait on this thread
            if self._closed:  # its ring may have been among those just emptied
                return
            if many:
                time.sleep(PAUSE)
            self._bell.wait(LOOK_AGAIN if waiting else 3600.0)

    def close(self) -> None:
        self._closed = True
        self._bell.ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        if self._thread is None or not self._thread.is_alive():
            self._bell.close()

    def close_after_fork(self) -> None:
        """In a forked child, where the thread does not exist."""
        self._bell.close()
