"""Results: one row for each run of consecutive tasks that ended together. Write-once; bounded by age and bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw

from penstock.engines.sqlite.database import Database, Execute
from penstock.engines.sqlite.ids import runs
from penstock.outcome import Outcome, State

RUN_BYTES = 64 << 10
"""A run is cut at this size, so that reading one small result never reads megabytes."""
EXPIRE_AT_ONCE = 64
"""Runs dropped in one transaction."""

INSERT = (
    "INSERT INTO result (lo, hi, at, total, worker, v) VALUES (?1, ?2, ?3,"
    " coalesce((SELECT total FROM result ORDER BY run DESC LIMIT 1), 0) + ?6, ?4, CAST(?5 AS TEXT))"
)
Entry = tuple[State, float, float, int, str, Raw, str | None]

_encode = msgspec.json.Encoder().encode
_decode_run = msgspec.json.Decoder(list[Raw]).decode
_decode_entry = msgspec.json.Decoder(Entry | None).decode


class Results:
    def __init__(self, db: Database, expires: float, max_bytes: int, now: Callable[[], float]) -> None:
        self._db = db
        self.expires = expires
        self.max_bytes = max_bytes
        self._now = now

    def add(self, outcomes: Mapping[int, tuple[str, Outcome]], worker: str) -> None:
        """Store outcomes by row id; the caller holds that there is none yet. Inside a write transaction."""
        now = self._now()
        for low, high in runs(sorted(outcomes)):
            start, size = low, 0
            entries: list[object] = []
            for row in range(low, high + 1):
                task, outcome = outcomes[row]
                entries.append(_entry(task, outcome))
                size += len(outcome.value) + 60
                if size >= RUN_BYTES:
                    self._insert(start, row, now, worker, entries)
                    start, size, entries = row + 1, 0, []
            if entries:
                self._insert(start, high, now, worker, entries)

    def _insert(self, low: int, high: int, now: float, worker: str, entries: list[object]) -> None:
        value = _encode(entries)
        self._db.execute(INSERT, (low, high, now, worker, value, len(value)))

    def forget(self, row: int) -> None:
        """Drop one result. Inside a write transaction."""
        found = self._db.execute(
            "SELECT run, lo, hi, v FROM result WHERE lo <= ? ORDER BY lo DESC LIMIT 1", (row,)
        ).fetchone()
        if found is None or found[2] < row:
            return
        run, low, _, value = found
        entries = _decode_run(value)
        entries[row - low] = Raw(b"null")
        if all(bytes(entry) == b"null" for entry in entries):
            self._db.execute("DELETE FROM result WHERE run = ?", (run,))
        else:
            self._db.execute("UPDATE result SET v = CAST(? AS TEXT) WHERE run = ?", (_encode(entries), run))

    def expire(self) -> int:
        """Drop the oldest runs that are over the age or make the sum too large; returns how many. Inside a write transaction."""
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
        return len(gone)


def find(query: Execute, row: int) -> tuple[str, str, Outcome] | None:
    """(task, worker, outcome) of a row id, through `query` (any connection's `execute`); `None` when there is none."""
    found = query("SELECT lo, hi, worker, v FROM result WHERE lo <= ? ORDER BY lo DESC LIMIT 1", (row,)).fetchone()
    if found is None or found[1] < row:
        return None
    return read_entry(_decode_run(found[3])[row - found[0]], found[2])


def read_run(value: str) -> list[Raw]:
    return _decode_run(value)


def read_entry(entry: Raw, worker: str) -> tuple[str, str, Outcome] | None:
    fields = _decode_entry(entry)
    if fields is None:
        return None
    state, done, runtime, retries, task, value, encoding = fields
    raw = bytes(value) if encoding is None else base64.b64decode(msgspec.json.decode(value, type=str))
    return task, worker, Outcome(state, raw, done, runtime, retries, encoding or "json")


def _entry(task: str, outcome: Outcome) -> tuple[object, ...]:
    """JSON stays readable in SQL; other encodings go as base64 with their name."""
    if outcome.content_type == "json":
        return (
            outcome.state,
            outcome.done,
            outcome.runtime,
            outcome.retries,
            task,
            Raw(outcome.value or b"null"),
            None,
        )
    value = base64.b64encode(outcome.value).decode()
    return (outcome.state, outcome.done, outcome.runtime, outcome.retries, task, value, outcome.content_type)
