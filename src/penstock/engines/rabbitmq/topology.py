"""Queues, exchanges and bindings, declared when first used. What is there with other arguments is told, not bent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pika import spec

from penstock.engines.rabbitmq import naming
from penstock.engines.rabbitmq.channel import Channel
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.settings import HARD_BYTES, HARD_LENGTH, Settings
from penstock.errors import UnknownQueue
from penstock.message import NORMAL

DELIVERY_LIMIT = 1_000_000_000
"""RabbitMQ 4 drops what was returned 20 times, if not told otherwise; what is given back here was not even started."""


class Topology:
    """What this process has declared, on one connection; another connection starts anew."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._channel: Channel | None = None
        self._asking = asyncio.Lock()  # a refusal ends the channel, and must not end another's call
        self._declared: set[str] = set()
        self._levels = 0
        self._news = False
        self.announce: Callable[[str], Coroutine[Any, Any, None]] | None = None
        """Tells the workers of a lane that is new."""

    async def lane(self, name: str, priority: int) -> str:
        """Make sure that the queue of this priority is there; returns its name."""
        lane = naming.lane_name(name, priority)
        if lane in self._declared:
            return lane
        if self._settings.passive:
            try:
                await self.ready(lane)
            except UnknownQueue as error:
                raise UnknownQueue(f"{error}; create it, or leave out ?declare=passive") from error
            self._declared.add(lane)
            return lane
        if priority != NORMAL:
            await self._declare(naming.marker_name(name))
        await self._declare(lane)
        if self._settings.exchange and priority == NORMAL:
            await self._bind_own_exchange(lane)
        if priority != NORMAL and self.announce is not None:
            await self.news()
            await self.announce(lane)
        return lane

    async def dead(self, name: str) -> str:
        """The queue of dead letters."""
        dead = naming.dead_name(name)
        await self._declare(dead)
        return dead

    def has(self, lane: str) -> bool:
        """This process uses it."""
        return lane in self._declared

    def forget(self, lane: str) -> None:
        """Somebody deleted it."""
        self._declared.discard(lane)

    async def lanes(self, name: str) -> list[int]:
        """The priorities whose queues are there, the most urgent first."""
        await self.lane(name, NORMAL)
        if self._settings.passive or await self.ready_or_none(naming.marker_name(name)) is None:
            return [NORMAL]
        found = []
        for priority in naming.PRIORITIES:
            lane = naming.lane_name(name, priority)
            if lane in self._declared or await self.ready_or_none(lane) is not None:
                found.append(priority)
        return found

    async def ready(self, queue: str) -> int:
        """Messages that are ready in a queue. Raises `UnknownQueue`."""
        answer = await self.ask(spec.Queue.Declare(0, queue, passive=True), spec.Queue.DeclareOk)
        return int(answer.message_count)

    async def ready_or_none(self, queue: str) -> int | None:
        try:
            return await self.ready(queue)
        except UnknownQueue:
            return None

    async def purge(self, queue: str) -> int:
        answer = await self.ask(spec.Queue.Purge(0, queue), spec.Queue.PurgeOk)
        return int(answer.message_count)

    async def news(self) -> None:
        """The exchange on which processes tell each other what is new."""
        if not self._news:
            await self.ask(spec.Exchange.Declare(0, naming.NEWS, "fanout", durable=True), spec.Exchange.DeclareOk)
            self._news = True

    async def delay(self, top: int, lane: str) -> str:
        """Make sure of the wait queues up to this level, and of the way from them to `lane`; returns the exchange."""
        if self._levels == 0:
            await self._exchange(naming.DUE)
        while self._levels <= top:
            await self._level(self._levels)
            self._levels += 1
        binding = f"{naming.DUE} → {lane}"
        if binding not in self._declared:
            await self._bind(lane, naming.DUE, f"#.{naming.word(lane)}")
            self._declared.add(binding)
        return naming.delay_queue(top)

    async def _level(self, level: int) -> None:
        """A message with digit 1 waits here for this level's time; both go on to the level below."""
        exchange = queue = naming.delay_queue(level)
        below = naming.delay_queue(level - 1) if level else naming.DUE
        await self._exchange(exchange)
        await self._declare(
            queue,
            {
                "x-message-ttl": naming.delay_time(level),
                "x-dead-letter-exchange": below,
                "x-dead-letter-strategy": "at-least-once",
            },
        )
        await self._bind(queue, exchange, naming.level_pattern(level, 1))
        past = spec.Exchange.Bind(0, below, exchange, naming.level_pattern(level, 0))
        await self.ask(past, spec.Exchange.BindOk)

    async def _exchange(self, name: str) -> None:
        await self.ask(spec.Exchange.Declare(0, name, "topic", durable=True), spec.Exchange.DeclareOk)

    async def _bind(self, queue: str, exchange: str, key: str) -> None:
        await self.ask(spec.Queue.Bind(0, queue, exchange, key), spec.Queue.BindOk)

    async def _bind_own_exchange(self, lane: str) -> None:
        exchange, kind = self._settings.exchange, self._settings.exchange_type
        await self.ask(spec.Exchange.Declare(0, exchange, kind, durable=True), spec.Exchange.DeclareOk)
        await self._bind(lane, exchange, lane)

    async def _declare(self, queue: str, more: dict[str, Any] | None = None) -> None:
        if queue in self._declared:
            return
        arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-max-length": HARD_LENGTH,
            "x-max-length-bytes": HARD_BYTES,
            "x-delivery-limit": DELIVERY_LIMIT,
            **(more or {}),
        }
        if self._settings.members is not None:
            arguments["x-quorum-initial-group-size"] = self._settings.members
        declare = spec.Queue.Declare(0, queue, durable=True, arguments=arguments)
        await self.ask(declare, spec.Queue.DeclareOk)
        self._declared.add(queue)

    async def ask(self, method: Any, *answers: type) -> Any:
        """Call the server on a channel that may end by it."""
        async with self._asking:
            if self._channel is None or self._channel.error is not None:
                self._channel = await self._connection.channel()
            call = self._channel.call(method, *answers, timeout=self._connection.patience)
            return await self._connection.answer(call)
