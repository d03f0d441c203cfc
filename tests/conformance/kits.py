"""The kits on which this project's own engines run the suite."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.broker import Features, Key
from penstock.clock import ManualClock
from penstock.engines.memory.broker_face import FEATURES, MemoryBroker
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


class SplitBroker(MemoryBroker):
    """A broker that knows nothing of results; of effects, it applies to its own queues what `native` names."""

    native: frozenset[str] = frozenset()

    @property
    def features(self) -> Features:
        return replace(FEATURES, engine="split", atomic_settle=False, effects=self.native)


class PublishingBroker(SplitBroker):
    native = frozenset({"Publish"})


class OneByOneBroker(PublishingBroker):
    """Takes one message at a time."""

    @property
    def features(self) -> Features:
        return replace(super().features, atomic_batch=1)


class SplitKit(Kit):
    """Tasks in one memory store, results in another."""

    def __init__(self, broker_class: type[SplitBroker], *, blocking: bool) -> None:
        clock = ManualClock()
        self._store = Store(clock, Shelf(clock))
        self._broker_class = broker_class
        results = MemoryEngine(Store(clock, Shelf(clock)))
        super().__init__(self.open_second(), blocking=blocking, clock=clock, results=results)

    def open_second(self) -> MemoryEngine:
        engine = MemoryEngine(self._store)
        engine.broker = self._broker_class(self._store)
        return engine
