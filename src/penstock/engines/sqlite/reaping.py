"""Taking back what dead or silent workers held, and clearing what is out of date. Small write transactions."""

from __future__ import annotations

from collections.abc import Callable

from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.leases import rows_of
from penstock.engines.sqlite.limiters import Limiters
from penstock.engines.sqlite.publishing import Wake
from penstock.engines.sqlite.readying import Readier
from penstock.engines.sqlite.registry import Registered
from penstock.engines.sqlite.results import Results

KEEP_REVOKED = 7 * 86400.0
"""Seconds for which a revocation of an id that nobody has seen is remembered."""
KEEP_DEAD = 100_000
"""Dead letters kept; the oldest go first."""
AT_ONCE = 1_000


class Reaper:
    def __init__(
        self,
        db: Database,
        catalog: Catalog,
        registry: Registered,
        readier: Readier,
        limiters: Limiters,
        results: Results,
        now: Callable[[], float],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._registry = registry
        self._readier = readier
        self._limiters = limiters
        self._results = results
        self._now = now

    def dead_workers(self) -> list[str]:
        """Workers that hold leases or are listed, whose process has ended."""
        return [worker for worker in self._registry.files() if self._registry.is_dead(worker)]

    def bury(self, worker: str, wake: Wake) -> int:
        """Take back all leases of a dead worker, charging what it had started; returns how many tasks."""
        started = self._registry.started(worker)
        leases = self._db.execute("SELECT token, lo, hi FROM lease WHERE worker = ? ORDER BY lo", (worker,)).fetchall()
        count = sum(self._take_back(token, low, high, started, wake) for token, low, high in leases)
        self._db.execute("DELETE FROM worker WHERE id = ?", (worker,))
        return count

    def leave(self, worker: str, wake: Wake) -> None:
        """The worker signs off: what it still holds is ready again, uncharged."""
        leases = self._db.execute("SELECT token, lo, hi FROM lease WHERE worker = ? ORDER BY lo", (worker,)).fetchall()
        for token, low, high in leases:
            self._take_back(token, low, high, set(), wake)
        self._db.execute("DELETE FROM worker WHERE id = ?", (worker,))

    def expired(self, wake: Wake) -> int:
        """Take back leases that ran out: their worker is stopped, cut off or stuck."""
        leases = self._db.execute(
            "SELECT token, lo, hi, worker FROM lease WHERE until < ? ORDER BY lo LIMIT ?", (self._now(), AT_ONCE)
        ).fetchall()
        return sum(
            self._take_back(token, low, high, self._registry.started(worker), wake)
            for token, low, high, worker in leases
        )

    def _take_back(self, token: int, low: int, high: int, started: set[tuple[int, int]], wake: Wake) -> int:
        rows = [row for row, _, _ in rows_of(self._db, token, low, high)]
        for row in rows:
            if (token, row) in started:
                self._db.execute("UPDATE task SET attempts = attempts + 1 WHERE id = ?", (row,))
        self._db.execute("DELETE FROM lease WHERE token = ?", (token,))
        wake.queues |= self._readier.put_back(rows)
        wake.tasks += len(rows)
        if self._catalog.by_id(lane_of(low)).limited:
            wake.queues |= self._limiters.freed(lane_of(low))
        return len(rows)

    def has_expired(self) -> bool:
        """Whether there is anything for `expired` to do, without a write transaction."""
        row = self._db.query("SELECT min(until) FROM lease").fetchone()
        return row[0] is not None and row[0] < self._now()

    def clear(self) -> int:
        """Drop results, keys, limiters and notes that are out of date, a little at a time; returns how many rows."""
        now = self._now()
        dropped = self._results.expire() + self._limiters.forget()
        for statement in (
            "DELETE FROM dedup WHERE name IN (SELECT name FROM dedup WHERE until < ?1 LIMIT 1000)",
            "DELETE FROM unique_key WHERE name IN (SELECT name FROM unique_key WHERE until < ?1 LIMIT 1000)",
        ):
            self._db.execute(statement, (now,))
            dropped += self._db.changes()
        self._db.execute("DELETE FROM revoked_name WHERE at < ?", (now - KEEP_REVOKED,))
        self._db.execute(
            "DELETE FROM dead WHERE id IN"
            " (SELECT id FROM dead ORDER BY died LIMIT min(?2, max(0, (SELECT count(*) FROM dead) - ?1)))",
            (KEEP_DEAD, AT_ONCE),
        )
        return dropped + self._db.changes()

    def needs_clearing(self) -> bool:
        """Whether `clear` would find something, without a write transaction."""
        return bool(
            self._db.query(
                NEEDS_CLEARING,
                (self._now() - self._results.expires, self._now(), self._results.max_bytes, KEEP_DEAD),
            ).fetchone()[0]
        )


NEEDS_CLEARING = """
SELECT EXISTS (SELECT 1 FROM (SELECT at FROM result ORDER BY run LIMIT 1) WHERE at < ?1)
    OR EXISTS (SELECT 1 FROM dedup WHERE until < ?2)
    OR EXISTS (SELECT 1 FROM unique_key WHERE until < ?2)
    OR EXISTS (SELECT 1 FROM limiter WHERE look < ?2)
    OR coalesce((SELECT total FROM result ORDER BY run DESC LIMIT 1) - (SELECT total FROM result ORDER BY run LIMIT
    1), 0) > ?3
    OR EXISTS (SELECT 1 FROM dead LIMIT 1 OFFSET ?4)
"""
