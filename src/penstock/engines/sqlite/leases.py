"""What this process holds: an index of the lease rows, so that settling need not read tasks again. The rows are the
truth."""

from __future__ import annotations

import threading
from collections.abc import Collection

from msgspec import Struct

from penstock.engines.sqlite.catalog import Lane
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of

ROWS = """
SELECT id, length(body), attempts FROM task t WHERE id BETWEEN ?1 AND ?2 AND due IS NULL
AND NOT EXISTS (SELECT 1 FROM returned r WHERE r.lane = ?3 AND t.id BETWEEN r.lo AND r.hi)
AND NOT EXISTS (SELECT 1 FROM lease l WHERE l.token > ?4 AND t.id BETWEEN l.lo AND l.hi)
"""


FEW = 100
"""Leases that are looked through for a row."""


class Held(Struct, gc=False):
    """One lease of this process: the tasks not yet settled, with their names and sizes in bytes."""

    token: int
    lane: Lane
    tasks: dict[int, tuple[str, int]]
    worker: str


class Leases:
    """The leases of this process by token. Changed only after a commit, so a rollback leaves it right."""

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()

    def get(self, token: int) -> Held | None:
        return self._held.get(token)

    def add(self, held: list[Held]) -> None:
        with self._lock:
            for one in held:
                self._held[one.token] = one

    def settle(self, gone: dict[int, list[int]]) -> None:
        """Take the settled rows, by token, out; a lease with none left is dropped."""
        with self._lock:
            for token, rows in gone.items():
                held = self._held.get(token)
                if held is None:
                    continue
                if len(rows) == len(held.tasks):
                    del self._held[token]
                    continue
                for row in rows:
                    held.tasks.pop(row, None)
                if not held.tasks:
                    self._held.pop(token, None)

    def lose(self, token: int) -> None:
        with self._lock:
            self._held.pop(token, None)

    def holds(self, token: int, row: int) -> bool:
        """Not settled here before. A lease that this process does not know is its row's business."""
        held = self._held.get(token)
        return held is None or row in held.tasks

    def is_held(self, row: int) -> bool:
        """Somebody has it now, for sure; `False`: maybe."""
        held = self._held
        return len(held) < FEW and any(row in one.tasks for one in held.values())

    def size(self) -> int:
        """Tasks that are held."""
        with self._lock:
            return sum(len(held.tasks) for held in self._held.values())

    def held_by(self, workers: Collection[str]) -> int:
        """Tasks that these workers hold."""
        with self._lock:
            return sum(len(held.tasks) for held in self._held.values() if held.worker in workers)

    def tokens(self) -> list[int]:
        with self._lock:
            return list(self._held)


def rows_of(db: Database, token: int, low: int, high: int) -> list[tuple[int, int, int]]:
    """(row, bytes, attempts) of what a lease still holds. A row that was released is in `returned`, or in a younger
    lease."""
    return db.execute(ROWS, (low, high, lane_of(low), token)).fetchall()
