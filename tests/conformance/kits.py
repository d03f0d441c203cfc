"""The kits on which this project's own engines run the suite."""

from __future__ import annotations

from penstock.broker import Key
from penstock.clock import ManualClock
from penstock.engines.memory.handle import MemoryEngine
from penstock.engines.memory.shelf import Shelf
from penstock.engines.memory.store import Store
from penstock.testing.conformance import Kit


class MemoryKit(Kit):
    """A memory store of its own, under a clock that the check moves."""

    def __init__(self, *, blocking: bool, engine_class: type[MemoryEngine] = MemoryEngine) -> None:
        clock = ManualClock()
        self.store = Store(clock, Shelf(clock))
        self._engine_class = engine_class
        super().__init__(engine_class(self.store), blocking=blocking, clock=clock)

    def open_second(self) -> MemoryEngine:
        return self._engine_class(self.store)

    async def corrupt(self, key: Key) -> bool:
        task = self.store.tasks[str(key)]
        # As many bytes as before, so that the counters stay right, but no message.
        task.data = b"\xc1" * len(task.data)
        return True
