"""Results: one row for each run of consecutive tasks that ended together. Write-once; bounded by age and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.codec import failure
from penstock.engines.sqlite.database import Database, Execute
from penstock.engines.sqlite.ids import runs
from penstock.engines.sqlite.streams import drop
from penstock.errors import DecodeError, TaskRevoked
from penstock.outcome import Outcome, State
from penstock.outcome_runs import RUN_BYTES, encode_run, entry_of, read_entry, read_run

EXPIRE_AT_ONCE = 64
"""Runs dropped in one transaction."""

INSERT = (
    "INSERT INTO result (lo, hi, at, total, worker, v) VALUES (?1, ?2, ?3,"
    " coalesce((SELECT total FROM result ORDER BY run DESC LIMIT 1), 0) + ?6, ?4, CAST(?5 AS TEXT))"
)
PackedRun = tuple[int, int, str, bytes]
"""First and last row id, worker, JSON."""


class Results:
    def __init__(self, db: Database, expires: float, max_bytes: int, now: Callable[[], float]) -> None:
        self._db = db
        self.expires = expires
        self.max_bytes = max_bytes
        self._now = now

    def add(self, outcomes: Mapping[int, tuple[str, Outcome]], worker: str) -> None:
        """Store outcomes by row id; the caller holds that there is none yet. Inside a write transaction."""
        self.insert(pack_runs(outcomes, worker))

    def insert(self, packed: list[PackedRun]) -> None:
        """Insert runs, but for tasks that have a result already: the first one stays."""
        now = self._now()
        for low, high, worker, value in packed:
            before = self._db.execute(
                "SELECT hi FROM result WHERE lo <= ? ORDER BY lo DESC LIMIT 1", (high,)
            ).fetchone()
            if before is not None and before[0] >= low:
                self._insert_missing(low, worker, value)
            else:
                self._db.execute(INSERT, (low, high, now, worker, value, len(value)))

    def _insert_missing(self, low: int, worker: str, value: bytes) -> None:
        for row, entry in enumerate(read_run(value), low):
            if find(self._db.execute, row) is None:
                single = encode_run([entry])
                self._db.execute(INSERT, (row, row, self._now(), worker, single, len(single)))

    def forget(self, row: int) -> None:
        """Drop one result, and the parts before it. Inside a write transaction."""
        drop(self._db.execute, row, row)
        found = self._db.execute(
            "SELECT run, lo, hi, at, worker, v FROM result WHERE lo <= ? ORDER BY lo DESC LIMIT 1", (row,)
        ).fetchone()
        if found is None or found[2] < row:
            return
        run, low, _, at, worker, value = found
        entries = read_run(value)
        self._db.execute("DELETE FROM result WHERE run = ?", (run,))
        # Two runs with a gap, not one with a hole: a new result in the hole would hide the end of the run, since
        # look-ups rely on runs that do not overlap.
        for first, part in ((low, entries[: row - low]), (row + 1, entries[row - low + 1 :])):
            if part:
                text = encode_run(part)
                self._db.execute(INSERT, (first, first + len(part) - 1, at, worker, text, len(text)))

    def expire(self) -> int:
        """Drop the oldest runs that are over the age or make the sum too large; returns how many. Inside a write
        transaction."""
        last = self._db.execute("SELECT total FROM result ORDER BY run DESC LIMIT 1").fetchone()
        if last is None:
            return 0
        oldest = self._now() - self.expires
        old = self._db.execute(
            "SELECT run, lo, hi, at, total FROM result ORDER BY run LIMIT ?", (EXPIRE_AT_ONCE,)
        ).fetchall()
        gone = [(run, lo, hi) for run, lo, hi, at, total in old if at < oldest or last[0] - total >= self.max_bytes]
        for run, low, high in gone:
            self._db.execute("DELETE FROM result WHERE run = ?", (run,))
            self._db.execute("DELETE FROM alias WHERE id BETWEEN ? AND ?", (low, high))
            drop(self._db.execute, low, high)
        return len(gone)


def find(query: Execute, row: int) -> tuple[str, str, Outcome] | None:
    """(task, worker, outcome) of a row id, through `query` (any connection's `execute`); `None` when there is none."""
    found = query("SELECT lo, hi, worker, v FROM result WHERE lo <= ? ORDER BY lo DESC LIMIT 1", (row,)).fetchone()
    if found is None or found[1] < row:
        return None
    entries = read_run(found[3])
    if row - found[0] >= len(entries):
        raise DecodeError(f"the stored result of row {row} is damaged: its run is too short")
    return read_entry(entries[row - found[0]], found[2])


def pack_runs(outcomes: Mapping[int, tuple[str, Outcome]], worker: str) -> list[PackedRun]:
    """The rows to insert for outcomes by row id. Pure, so that it is done before the lock is taken."""
    packed: list[PackedRun] = []
    for low, high in runs(sorted(outcomes)):
        start, size = low, 0
        entries: list[object] = []
        for row in range(low, high + 1):
            task, outcome = outcomes[row]
            entries.append(entry_of(task, outcome))
            size += len(outcome.value) + 60
            if size >= RUN_BYTES:
                packed.append((start, row, worker, encode_run(entries)))
                start, size, entries = row + 1, 0, []
        if entries:
            packed.append((start, high, worker, encode_run(entries)))
    return packed


def revoked(why: str, now: float) -> Outcome:
    """The outcome of a task that was ended before it ran."""
    return Outcome(State.REVOKED, failure(TaskRevoked(why)), now)
