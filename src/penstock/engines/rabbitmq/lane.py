"""One queue's consumer, on a channel of its own: what arrived and waits, and what is held."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from pika import spec

from penstock.engines.rabbitmq import wire
from penstock.engines.rabbitmq.channel import Channel
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import PenstockError

LARGEST_PREFETCH = 2_000


class Lane:
    """`name` is the queue of one priority of `queue`. Its `token` is in the receipts of what it delivers: no other
    channel, of no other process, has the same."""

    def __init__(self, queue: str, name: str, priority: int, token: str, channel: Channel) -> None:
        self.queue, self.name, self.priority, self.token = queue, name, priority, token
        self.channel = channel
        self.arrived: deque[Content] = deque()
        self.held: dict[int, Content] = {}
        """What was handed out and is not settled, in the order of its tags."""
        self.moved: set[int] = set()
        """Of those, what is published again already, and only needs its ack."""
        self.consumer = ""
        """The consumer that is served now; empty: none."""
        self.prefetch = 0
        self.slow_until = 0.0
        """Monotonic: till then no more is asked for than is wanted at this moment."""
        self.wake: Callable[[Lane], None] = lambda lane: None
        self.gone: Callable[[Lane, PenstockError | None], None] = lambda lane, error: None
        self._out = 0
        self._consumers = 0
        self._changing = asyncio.Lock()
        """RabbitMQ 3.10 ends the connection (541) when a consumer is cancelled before it has answered its `consume`."""
        channel.deliver, channel.cancelled, channel.ended = self._on_deliver, self._on_cancelled, self._on_ended

    @property
    def alive(self) -> bool:
        return self.channel.error is None

    @property
    def room(self) -> int:
        """How many more messages the server may send now."""
        return self.prefetch - self._out if self.consumer else 0

    @property
    def coming(self) -> int:
        """How many messages this lane can bring without being asked again."""
        return len(self.arrived) + self.room

    async def ask(self, share: int, prefetch: int) -> None:
        """Make sure that `share` messages may come: where they may not, be served with up to `prefetch` unsettled ones
        from now on. A quorum queue takes the prefetch with the consumer only, so a change costs a new consumer."""
        async with self._changing:
            if self.coming < share:
                await self._consume(prefetch)

    async def _consume(self, prefetch: int) -> None:
        before = self.consumer
        self._consumers += 1
        self.consumer, self.prefetch, self._out = f"{self.token}.{self._consumers}", prefetch, 0
        methods: list[tuple[Any, type]] = [(spec.Basic.Cancel(before), spec.Basic.CancelOk)] if before else []
        methods.append((spec.Basic.Qos(0, prefetch, False), spec.Basic.QosOk))
        methods.append((spec.Basic.Consume(0, self.name, self.consumer), spec.Basic.ConsumeOk))
        channel = self.channel
        begun = [channel.begin((answer,), wire.method_frame(channel.number, method)) for method, answer in methods]
        for future in begun:
            await channel.wait(future)

    async def rest(self) -> None:
        """Be served no more; what waits here goes back."""
        consumer, self.consumer = self.consumer, ""
        self.give_back()
        if not consumer:
            return
        async with self._changing:
            if self.alive:
                await self.channel.call(spec.Basic.Cancel(consumer), spec.Basic.CancelOk)

    def give_back(self) -> None:
        if self.alive:
            for content in self.arrived:
                self.channel.requeue(content.tag)
        self.arrived.clear()

    def take(self) -> Content:
        """The next that waits is held from now on."""
        content = self.arrived.popleft()
        self.held[content.tag] = content
        return content

    def acknowledge(self, tags: Collection[int]) -> None:
        """All of them are held. The oldest in one frame, so that the queue settles them in one command."""
        front, count = 0, 0
        for tag in self.held:
            if tag not in tags:
                break
            front, count = tag, count + 1
        if count:
            self.channel.ack(front, count > 1)
        for tag in tags:
            if tag > front:
                self.channel.ack(tag, False)
            self._settled(tag)

    def requeue(self, tag: int) -> None:
        self.channel.requeue(tag)
        self._settled(tag)

    def _settled(self, tag: int) -> None:
        content = self.held.pop(tag)
        self.moved.discard(tag)
        if content.consumer == self.consumer:
            self._out -= 1

    async def settled(self) -> None:
        """Returns when the server has read what was acknowledged; raises when it may not have."""
        await self.channel.call(spec.Basic.Qos(0, max(1, self.prefetch), False), spec.Basic.QosOk)

    def _on_deliver(self, content: Content) -> None:
        if not self.consumer:
            self.channel.requeue(content.tag)  # sent before the server knew that we ask no more
            return
        if content.consumer == self.consumer:
            self._out += 1
        self.arrived.append(content)
        self.wake(self)

    def _on_cancelled(self, consumer: str) -> None:
        """By the server: the queue was deleted, or has no leader."""
        if consumer == self.consumer:
            self.consumer = ""
            self.gone(self, None)

    def _on_ended(self, error: PenstockError) -> None:
        self.consumer = ""
        self.arrived.clear()
        self.held.clear()
        self.moved.clear()
        self.gone(self, error)
