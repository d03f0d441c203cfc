"""The engine as a `Broker`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.broker import LEASE_LOST, Answer, Demand, Done, Features, Held, Key, Lease, LeaseLost, Lost, Step
from penstock.delivery import Delivery, Receipt, Settlement
from penstock.engines.rabbitmq.core import CONNECTING, Core
from penstock.engines.rabbitmq.lane import Lane
from penstock.engines.rabbitmq.reading import opened
from penstock.engines.rabbitmq.settings import Settings
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import BrokerUnavailable, PenstockError
from penstock.message import Message

if TYPE_CHECKING:
    from penstock.engines.rabbitmq.engine import RabbitEngine

MAX_BATCH = 1_000
WAITED, ARRIVING = 0.05, 0.02
"""Seconds from which on what came had waited for a worker, so that more waits, and seconds that this is given to come
then: what is there is not known before. Who does not wait for it would ask at once again, and it would look as if there
were no work."""
SKEW = 1.0
"""Seconds by which a task may come before it is due, by this machine's clock; one that is earlier waits again."""


def features(settings: Settings) -> Features:
    """What is not declared by us, we cannot add queues to: no delays and no priorities then. Nor does AMQP tell what
    such a queue keeps: a transient one loses all when its server stops."""
    return Features(
        engine="rabbitmq",
        atomic_settle=False,
        max_batch=MAX_BATCH,
        effects=frozenset(),
        guards=frozenset(),
        whole_batches=False,
        knows_ids=False,
        delay=not settings.passive,
        priority=not settings.passive,
        bound="soft",
        follows=settings.bounds is not None,
        durability="process" if settings.passive else "power",
        keeps_place=False,
        partition=False,
        revoke_queued=False,
        coordination=False,
        results=settings.replies,
        leases="connection",
        sees_delayed=False,
        pause=False,
    )


class RabbitBroker:
    def __init__(self, engine: RabbitEngine, settings: Settings) -> None:
        self._engine = engine
        self.features = features(settings)
        self._backlog = False
        """What came last had waited."""

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        core = self._engine.core
        if core.replies.wanted and not core.replies.ready:
            await core.replies.ensure(timeout)
        return await core.post.publish(batch, timeout)

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        return await self._engine.core.post.follow_up(batch, timeout)

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        core = self._engine.core
        consumers = core.consumers
        settled: Sequence[Done | LeaseLost] = ()
        if want is None and consumers is not None:
            await consumers.rest()  # before there is room for more
        if settle:
            if consumers is None:
                settled = [LEASE_LOST] * len(settle)
            else:
                settled = await core.settler.settle(consumers, settle, heard=want is None)
        if want is None:
            return Step(settled, [])
        deliveries: list[Delivery] = []
        try:
            await self._reserve(core, want, deliveries)
        except PenstockError:
            if not settle:
                raise  # else what was settled is told first, and the next step tells what is wrong
        return Step(settled, deliveries)

    async def _reserve(self, core: Core, want: Demand, deliveries: list[Delivery]) -> None:
        names = [core.post.name(queue, want.namespace) for queue in want.queues]
        until = time.monotonic() + max(want.wait, ARRIVING if self._backlog else 0.0)

        def take(lane: Lane, content: Content) -> bool:
            delivery = self._delivery(core, lane, content)
            if delivery is not None:
                deliveries.append(delivery)
            return delivery is not None

        stop = asyncio.Event()
        core.stops.add(stop)
        try:
            while True:
                consumers = await core.consuming.get(max(want.wait, CONNECTING))
                try:
                    await consumers.reserve(names, want, until, take, stop)
                    return
                except BrokerUnavailable:
                    if consumers.connection.error is None or time.monotonic() >= until or stop.is_set():
                        raise
                    deliveries.clear()  # what it brought is lost with it
        finally:
            core.stops.discard(stop)
            # Of one alone: to look at each would cost short tasks some per cent.
            last = deliveries[-1].message if deliveries else None
            if last is not None:
                self._backlog = core.settings.clock.time() - last.ready_since > WAITED

    def _delivery(self, core: Core, lane: Lane, content: Content) -> Delivery | None:
        found = opened(content, f"{lane.token}-{content.tag}")
        attempts, message = found.attempts, found.message
        if content.redelivered:
            attempts += core.charges.of(found.id)
        receipt = (lane.token, content.tag, attempts, found.id)
        if message is None:
            return Delivery(receipt, found.id, None, found.damage, found.body, attempts, content.redelivered)
        message.attempts = attempts
        if message.eta is not None and message.eta > core.settings.clock.time() + SKEW:
            core.spawn(core.settler.wait_again(lane, content.tag, receipt, message.eta))
            return None
        return Delivery(receipt, found.id, message, None, b"", attempts, content.redelivered)

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        consumers = self._engine.core.consumers
        lanes = consumers.by_token if consumers is not None else {}
        return [
            Held(None) if (lane := lanes.get(receipt[0])) is not None and receipt[1] in lane.held else Lost()
            for receipt in receipts
        ]

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        """AMQP tells what is ready, not what is leased or delayed: see `Inspectable.queues`."""
        return None

    def public_id(self, key: Key) -> str:
        return str(key)

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        self._engine.core.starts.note(slot, receipt)

    def interrupt(self) -> None:
        self._engine.thread.soon(self._interrupt)

    def _interrupt(self) -> None:
        core = self._engine.core
        for stop in core.stops:
            stop.set()
        if core.consumers is not None:
            core.consumers.interrupt()
