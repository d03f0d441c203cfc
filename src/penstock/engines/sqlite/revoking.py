"""Revoking and purging, inside write transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.coordinator import Revoked
from penstock.engines.sqlite import results as result_rows
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.counting import Counters
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.limiters import Limiters
from penstock.engines.sqlite.results import Results, revoked
from penstock.errors import DecodeError
from penstock.message import unpack
from penstock.outcome import Outcome

PURGE_AT_ONCE = 1_000


class Revoker:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        counters: Counters,
        limiters: Limiters,
        results: Results,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._counters = counters
        self._limiters = limiters
        self._results = results
        self._now = now

    def revoke(self, row: int, terminate: bool) -> Revoked:
        """A waiting task goes at once, and its callers are to be told (`Revoked.REMOVED`); a leased one is marked, for
        its worker and for whoever would get it next."""
        if self._db.execute("SELECT 1 FROM task WHERE id = ?", (row,)).fetchone() is None:
            return Revoked.ENDED
        if self._is_leased(row):
            self._db.traces = True
            self._db.execute("INSERT OR REPLACE INTO revoked VALUES (?, ?, ?)", (row, int(terminate), self._now()))
            return Revoked.RUNNING
        self.shrink_returned(row)
        self._remove([row], "revoked")
        return Revoked.REMOVED

    def shrink_returned(self, row: int) -> None:
        """Take a row out of the end of its returned range. In the middle of one it leaves a hole."""
        lane = lane_of(row)
        found = self._db.execute(
            "SELECT n, lo, hi FROM returned WHERE lane = ? AND ? IN (lo, hi)", (lane, row)
        ).fetchone()
        if found is None:
            return
        n, low, high = found
        if low == high:
            self._db.execute("DELETE FROM returned WHERE n = ?", (n,))
        elif row == low:
            self._db.execute("UPDATE returned SET lo = lo + 1 WHERE n = ?", (n,))
        else:
            self._db.execute("UPDATE returned SET hi = hi - 1 WHERE n = ?", (n,))
        self._db.execute(
            "UPDATE lane SET back = back - 1, eligible = eligible * (back > 1 OR head < tail) WHERE id = ?", (lane,)
        )
        if self._catalog.by_id(lane).limited:
            self._limiters.emptied(lane)

    def remember(self, name: str) -> Revoked:
        """Refuse a chosen id that was not seen yet."""
        self._db.execute("INSERT OR REPLACE INTO revoked_name VALUES (?, ?)", (name, self._now()))
        return Revoked.REMEMBERED

    def drop_leased(self, low: int, high: int) -> set[int]:
        """End the tasks of a returned range that were revoked while somebody had them."""
        rows = [row for (row,) in self._db.execute("SELECT id FROM revoked WHERE id BETWEEN ? AND ?", (low, high))]
        if rows:
            self._remove(rows, "revoked")
        return set(rows)

    def purge(self, queue: int) -> int:
        """Drop up to PURGE_AT_ONCE tasks that nobody has leased; returns how many."""
        rows: list[int] = []
        for (lane,) in self._db.execute("SELECT id FROM lane WHERE queue = ?", (queue,)).fetchall():
            waiting = self._db.execute(
                "SELECT id FROM task t WHERE id >= ?1 << 45 AND id < (?1 + 1) << 45 AND NOT EXISTS"
                " (SELECT 1 FROM lease l WHERE t.id BETWEEN l.lo AND l.hi AND t.due IS NULL AND NOT EXISTS"
                " (SELECT 1 FROM returned r WHERE t.id BETWEEN r.lo AND r.hi)) LIMIT ?2",
                (lane, PURGE_AT_ONCE - len(rows)),
            )
            rows += [row for (row,) in waiting]
            if len(rows) >= PURGE_AT_ONCE:
                break
        self._remove(rows, "purged")
        if len(rows) < PURGE_AT_ONCE:  # nothing is ready any more: no range is left, with or without holes
            self._db.execute("DELETE FROM returned WHERE lane IN (SELECT id FROM lane WHERE queue = ?)", (queue,))
            self._db.execute(
                "UPDATE lane SET head = tail, back = 0, holes = 0, eligible = 0 WHERE queue = ? AND id > 0", (queue,)
            )
        return len(rows)

    def waits(self, row: int) -> bool:
        """It is there, and nobody has it."""
        there = self._db.execute("SELECT 1 FROM task WHERE id = ?", (row,)).fetchone() is not None
        return there and not self._is_leased(row)

    def _is_leased(self, row: int) -> bool:
        due = self._db.execute("SELECT due FROM task WHERE id = ?", (row,)).fetchone()[0]
        if due is not None:
            return False
        returned = "SELECT 1 FROM returned WHERE lane = ? AND ? BETWEEN lo AND hi"
        if self._db.execute(returned, (lane_of(row), row)).fetchone():
            return False
        return self._db.execute("SELECT 1 FROM lease WHERE ? BETWEEN lo AND hi", (row,)).fetchone() is not None

    def _remove(self, rows: Sequence[int], why: str) -> None:
        """Delete waiting tasks with their keys, and store REVOKED for their callers. Ranges keep their holes: claims
        skip them."""
        outcomes: dict[int, tuple[str, Outcome]] = {}
        for row in rows:
            due, body = self._db.execute("SELECT due, body FROM task WHERE id = ?", (row,)).fetchone()
            try:
                task = unpack(body).task
            except DecodeError:
                task = ""
            self._db.execute("DELETE FROM task WHERE id = ?", (row,))
            self._db.execute("DELETE FROM unique_key WHERE id = ? AND NOT lasting", (row,))
            self._db.execute("DELETE FROM revoked WHERE id = ?", (row,))
            self._counters.leave(self._catalog.by_id(lane_of(row)).queue, 1, len(body), int(due is not None))
            if result_rows.find(self._db.execute, row) is None:
                outcomes[row] = (task, revoked(why, self._now()))
        self._results.add(outcomes, "")
