"""The broker of the memory engine."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.broker import Answer, Cancelled, Demand, Features, Held, Key, Lease, Lost, Step
from penstock.delivery import Receipt, Settlement
from penstock.engines.memory import accepting, settling
from penstock.engines.memory.pausing import Pause
from penstock.engines.memory.store import Store
from penstock.message import Message
from penstock.shedding import SHEDDING

FEATURES = Features(
    engine="memory",
    atomic_settle=True,
    max_batch=10_000,
    effects=frozenset({"Publish", "Join", "ReleaseKey", "Put"}),
    guards=frozenset({"Unique", "Dedup", "Fence", "Limit"}),
    overflow=frozenset({"reject", *SHEDDING}),
    streams=True,
    durability="memory",
)


class MemoryBroker:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._interrupts = 0

    @property
    def features(self) -> Features:
        return FEATURES

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        with self._store.lock:
            self._store.tidy()
            return accepting.publish(self._store, batch)

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        with self._store.lock:
            self._store.tidy()
            return [accepting.follow_up(self._store, message) for message in batch]

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        store, interrupts = self._store, self._interrupts
        with store.lock:
            store.tidy()
            for settlement in settle:
                settling.check_effects(settlement.effects)
            step = Step([settling.settle(store, settlement) for settlement in settle], [])
            if want is None:
                return step
            step.deliveries = settling.claim(store, want)
            seen = store.waiters.rings
        # The wait is the caller's, in real time, whatever the store's clock says.
        deadline = time.monotonic() + want.wait
        while not step.deliveries and self._interrupts == interrupts and (left := deadline - time.monotonic()) > 0:
            await Pause(store.waiters, (seen, interrupts), self._rings, self._nap(want, left))
            with store.lock:
                store.tidy()
                step.deliveries = settling.claim(store, want)
                seen = store.waiters.rings
        return step

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        with self._store.lock:
            self._store.tidy()
            return [self._extend(receipt, self._store.now() + lease) for receipt in receipts]

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        with self._store.lock:
            line = self._store.lines.get((namespace, queue))
            return line.depth if line is not None else 0

    def public_id(self, key: Key) -> str:
        return str(key)

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        if receipt is None:
            self._store.starts.pop((id(self), slot), None)
        else:
            self._store.starts[id(self), slot] = receipt

    def interrupt(self) -> None:
        self._interrupts += 1
        self._store.waiters.wake_all()

    def _extend(self, receipt: Receipt, until: float) -> Lease:
        task = settling.held(self._store, receipt)
        if task is None:
            return Lost()
        task.until = max(task.until, until)
        return Cancelled(task.terminate) if task.revoked else Held(task.until)

    def _rings(self) -> tuple[int, int]:
        """What has changed when a waiting step must look again."""
        return (self._store.waiters.rings, self._interrupts)

    def _nap(self, want: Demand, left: float) -> float:
        """Seconds to sleep: `left`, or until something is due."""
        with self._store.lock:
            moments = (self._store.next_event(), settling.next_opening(self._store, want))
            now = self._store.now()
        return min([left, *(max(0.001, moment - now) for moment in moments if moment is not None)])
