"""The one dispatch that every call to a broker goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from penstock.broker import Answer, Broker, Demand, Lease, Step, check_batch, check_effects
from penstock.delivery import Receipt, Settlement
from penstock.effects import KINDS
from penstock.message import Message


class Call(Struct, frozen=True):
    """One call of a broker verb, as observers see it. `seconds` includes waiting; `items` counts messages or
    receipts."""

    verb: str
    items: int
    seconds: float
    error: BaseException | None


Observer = Callable[[Call], None]


class Dispatch:
    """The broker that everybody holds: it checks what all engines must refuse, and reports each call to the
    observers."""

    def __init__(self, broker: Broker, observers: Sequence[Observer] = ()) -> None:
        self._broker = broker
        self._observers = tuple(observers)
        self.features = broker.features
        self._every_effect = broker.features.effects >= KINDS
        self.public_id = broker.public_id
        self.record_start = broker.record_start
        self.interrupt = broker.interrupt

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        check_batch(self.features, batch)
        started = time.perf_counter()
        try:
            answers = await self._broker.publish(batch, timeout)
        except BaseException as error:
            self._report("publish", len(batch), started, error)
            raise
        self._report("publish", len(batch), started)
        return answers

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        check_batch(self.features, batch)
        started = time.perf_counter()
        try:
            answers = await self._broker.follow_up(batch, timeout)
        except BaseException as error:
            self._report("follow_up", len(batch), started, error)
            raise
        self._report("follow_up", len(batch), started)
        return answers

    @contextmanager
    def enlisting(self, batch: Sequence[Message]) -> Iterator[None]:
        """Around a publish inside the caller's own transaction, which no broker's connection carries."""
        check_batch(self.features, batch)
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            self._report("enlist", len(batch), started, error)
            raise
        self._report("enlist", len(batch), started)

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        if not self._every_effect:
            for item in settle:
                check_effects(self.features, item)
        started = time.perf_counter()
        try:
            step = await self._broker.step(settle, want)
        except BaseException as error:
            self._report("step", len(settle), started, error)
            raise
        self._report("step", len(settle) + len(step.deliveries), started)
        return step

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        started = time.perf_counter()
        try:
            held = await self._broker.extend(receipts, lease)
        except BaseException as error:
            self._report("extend", len(receipts), started, error)
            raise
        self._report("extend", len(receipts), started)
        return held

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        return await self._broker.depth(queue, namespace)

    def _report(self, verb: str, items: int, started: float, error: BaseException | None = None) -> None:
        if self._observers:
            call = Call(verb, items, time.perf_counter() - started, error)
            for observe in self._observers:
                observe(call)
