"""The suite on the embedded engine: a file of its own, under a clock that the check moves."""

from __future__ import annotations

from pathlib import Path

import apsw

from penstock.broker import Key
from penstock.clock import ManualClock
from penstock.engine import Engine
from penstock.engines.memory.handle import MemoryEngine
from penstock.engines.memory.shelf import Shelf
from penstock.engines.memory.store import Store
from penstock.engines.sqlite import open_engine
from penstock.testing.conformance import Kit


class SqliteKit(Kit):
    def __init__(self, path: Path, *, blocking: bool, results_in_memory: bool = False) -> None:
        self._path = path
        self._clock = ManualClock()
        results = MemoryEngine(Store(self._clock, Shelf(self._clock))) if results_in_memory else None
        super().__init__(self._open(), blocking=blocking, clock=self._clock, results=results)

    def _open(self) -> Engine:
        return open_engine(f"sqlite:///{self._path}", clock=self._clock, durability="process")

    def open_second(self) -> Engine:
        return self._open()

    async def corrupt(self, key: Key) -> bool:
        connection = apsw.Connection(str(self._path))
        # As many bytes as before, so that the counters stay right, but no message.
        (size,) = connection.execute("SELECT length(body) FROM task WHERE id = ?", (key,)).fetchall()[0]
        connection.execute("UPDATE task SET body = ? WHERE id = ?", (b"\xc1" * size, key))
        connection.close()
        return True
