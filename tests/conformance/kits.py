"""The kits on which this project's own engines run the suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from penstock.broker import Answer, Features, Full, Held, Key, Lease
from penstock.clock import ManualClock
from penstock.delivery import Receipt
from penstock.engine import Engine
from penstock.engines.memory import accepting
from penstock.engines.memory.broker_face import FEATURES, MemoryBroker
from penstock.engines.memory.handle import MemoryEngine
from penstock.engines.memory.records import Place
from penstock.engines.memory.shelf import Shelf
from penstock.engines.memory.store import Store
from penstock.message import Message
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

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """What was acknowledged before it started is retried under its id (see `penstock.worker.acknowledged`)."""
        with self._store.lock:
            for message in batch:
                if message.retries and message.id is not None:
                    self._store.ended.pop(message.id, None)
        return await super().follow_up(batch, timeout)


class PublishingBroker(SplitBroker):
    native = frozenset({"Publish", "ReleaseKey"})


class LooseBroker(PublishingBroker):
    """Where there is a weaker promise, it makes that one: it bounds what is ready, message by message, sees no starts,
    and says nothing of the order in which tasks come back. (That ids are not known cannot be played on this store.)"""

    @property
    def features(self) -> Features:
        loose = replace(super().features, whole_batches=False, bound="soft", starts=False, keeps_place=False)
        loose = replace(loose, overflow=frozenset({"reject"}))
        return replace(loose, priority=False, partition=False)

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        return [await self._publish(message, timeout) for message in batch]

    async def _publish(self, message: Message, timeout: float) -> Answer:
        with self._store.lock:
            self._store.tidy()
            line = self._store.line(message.namespace, message.queue)
            known = message.id is not None and self._store.known(message.id)
            ready, most = line.counts[Place.READY], line.declared.max_length
            if ready >= most and not known:
                return Full(message.queue, ready, most, "tasks", 1.0)
            return accepting.follow_up(self._store, message)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        # As if a connection held them.
        return [Held(None) if isinstance(one, Held) else one for one in await super().extend(receipts, lease)]

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        pass


class OneByOneBroker(PublishingBroker):
    """Takes one message at a time."""

    @property
    def features(self) -> Features:
        return replace(super().features, max_batch=1)


class SplitKit(Kit):
    """Tasks in one memory store, results on another server."""

    def __init__(
        self,
        broker_class: type[SplitBroker],
        *,
        blocking: bool,
        open_results: Callable[[ManualClock], Engine] = lambda clock: MemoryEngine(Store(clock, Shelf(clock))),
    ) -> None:
        clock = ManualClock()
        self._store = Store(clock, Shelf(clock))
        self._broker_class = broker_class
        super().__init__(self.open_second(), blocking=blocking, clock=clock, results=open_results(clock))

    def open_second(self) -> MemoryEngine:
        engine = MemoryEngine(self._store)
        engine.broker = self._broker_class(self._store)
        return engine
