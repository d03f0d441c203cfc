"""Parts of tasks: one row for a few of them, the newest of each task. They go with the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from penstock.engines.sqlite.database import Database, Execute
from penstock.errors import DecodeError
from penstock.outcome import MOST_PART_BYTES, MOST_PARTS, Part, Parts

ROW_PARTS = 256
ROW_BYTES = 64 << 10
"""A row has up to so many parts, and another is begun at this size: whole rows are dropped."""
LOOK = 10.0
"""Seconds between looks for parts that no result takes with it."""
AT_ONCE = 256
"""Tasks whose parts are dropped in one transaction."""

STREAM_WEIGHT, PART_WEIGHT = 128, 32
"""Bytes that a task and each of its parts take besides the values, about: a million empty parts are not nothing."""

Values = Sequence[tuple[bytes, str]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, str]]).decode


class Streams:
    def __init__(self, db: Database, expires: float, max_bytes: int, now: Callable[[], float]) -> None:
        self._db = db
        self._expires = expires
        self._max_bytes = max_bytes
        self._now = now
        self._looked = float("-inf")

    def append(self, row: int, run: int, mark: int, values: Values) -> bool:
        """Add parts of a task that has not ended; `False` for a run before the latest. Inside a write transaction."""
        execute = self._db.execute
        first, end, size, latest, last_mark = (
            execute("SELECT first, next, bytes, run, mark FROM stream WHERE id = ?", (row,)).fetchone() or FRESH
        )
        if run < latest:
            return False
        if mark == last_mark:
            return True
        for some, weight in _rows(values):
            execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", (row, end, run, len(some), weight, _encode(some)))
            end += len(some)
            size += weight
        while end - first > MOST_PARTS or size > MOST_PART_BYTES:
            count, weight = execute(
                "DELETE FROM part WHERE id = ? AND n = ? RETURNING count, bytes", (row, first)
            ).fetchall()[0]
            first += count
            size -= weight
        execute(
            "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row, first, end, size, run, mark, self._now()),
        )
        return True

    def parts(self, row: int, offset: int, limit: int) -> Parts | None:
        """`None` for a task that published none. Whether it has ended is for others to say. Inside `Database.read`;
        raises `DecodeError`."""
        found = self._db.query("SELECT first, next FROM stream WHERE id = ?", (row,)).fetchone()
        if found is None:
            return None
        first, end = found
        low = min(max(first, offset if offset >= 0 else offset + end), end)
        high = min(low + limit, end)
        rows = self._db.query(READ, (row, low, high))
        parts = [part for n, run, packed in rows for part in _read(n, run, packed) if low <= part.index < high]
        return Parts(first, end, parts, ended=False)

    def end(self, row: int) -> int:
        """The next index. Inside `Database.read`."""
        found = self._db.query("SELECT next FROM stream WHERE id = ?", (row,)).fetchone()
        return found[0] if found else 0

    def may_be_stale(self) -> bool:
        """Whether it is time for `stale`, which reads all rows of `stream`."""
        if self._now() - self._looked < LOOK:
            return False
        self._looked = self._now()
        return True

    def stale(self) -> list[int]:
        """Tasks whose parts are to be dropped: those that are not here and left no result, after a while; and the
        oldest, when all parts together are over the bound of results. Inside `Database.read`."""
        rows = [row for (row,) in self._db.query(STALE, (self._now() - self._expires, AT_ONCE))]
        (size,) = self._db.query(f"SELECT coalesce(sum({WEIGHT}), 0) FROM stream").fetchone()
        if size > self._max_bytes:
            for row, weight in self._db.query(
                f"SELECT id, {WEIGHT} FROM stream ORDER BY at LIMIT ?", (AT_ONCE,)
            ).fetchall():
                rows.append(row)
                size -= weight
                if size <= self._max_bytes:
                    break
        return rows


READ = """
SELECT n, run, v FROM part
WHERE id = ?1 AND n < ?3 AND n >= coalesce((SELECT max(n) FROM part WHERE id = ?1 AND n <= ?2), ?2) ORDER BY n
"""
"""The rows from the one that index ?2 is in up to ?3."""
WEIGHT = f"bytes + {PART_WEIGHT} * (next - first) + {STREAM_WEIGHT}"
FRESH = (0, 0, 0, 0, -1)
STALE = """
SELECT id FROM stream s WHERE at < ?1 AND NOT EXISTS (SELECT 1 FROM task WHERE task.id = s.id)
    AND coalesce((SELECT hi FROM result WHERE lo <= s.id ORDER BY lo DESC LIMIT 1), 0) < s.id LIMIT ?2
"""


def drop(execute: Execute, low: int, high: int) -> None:
    """Delete the parts of the rows low..high. Inside a write transaction."""
    execute("DELETE FROM part WHERE id BETWEEN ? AND ?", (low, high))
    execute("DELETE FROM stream WHERE id BETWEEN ? AND ?", (low, high))


def move(execute: Execute, row: int, to: int) -> None:
    """The parts of `row` are those of another row from now on. Inside a write transaction."""
    execute("UPDATE part SET id = ?2 WHERE id = ?1", (row, to))
    execute("UPDATE stream SET id = ?2 WHERE id = ?1", (row, to))


def _rows(values: Values) -> Iterator[tuple[list[tuple[bytes, str]], int]]:
    """The parts of each row, and their bytes."""
    some: list[tuple[bytes, str]] = []
    size = 0
    for value in values:
        if some and (len(some) == ROW_PARTS or size + len(value[0]) > ROW_BYTES):
            yield some, size
            some, size = [], 0
        some.append(value)
        size += len(value[0])
    if some:
        yield some, size


def _read(n: int, run: int, packed: bytes) -> Iterator[Part]:
    try:
        values = _decode(packed)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DecodeError(f"stored parts are damaged: {error}") from error
    return (Part(index, run, value, content_type) for index, (value, content_type) in enumerate(values, n))
