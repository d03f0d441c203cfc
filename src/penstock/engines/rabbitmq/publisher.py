"""Publishing: always confirmed, many in flight, never silent about what was refused, returned or left unanswered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum

from msgspec import Struct
from pika import spec

from penstock.engines.rabbitmq import wire
from penstock.engines.rabbitmq.channel import Channel
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.faults import NoRight
from penstock.engines.rabbitmq.progress import Patience, Watch
from penstock.engines.rabbitmq.settings import Settings
from penstock.engines.rabbitmq.topology import Topology
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import BrokerUnavailable, PenstockError

WINDOW = 4_096
"""Messages on one connection that wait for their confirms."""


ROUND_TRIP = 4.0
"""Seconds for an answer on a connection that is to publish: two fit in the time of a usual publish."""


class Fate(Enum):
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    """By the server: beyond its hard limit; or its leader was lost, and then it may be stored nevertheless."""
    RETURNED = "returned"
    """Nothing is bound to where it went."""
    UNKNOWN = "unknown"


class Parcel(Struct, gc=False):
    """A message as it is sent."""

    exchange: str
    routing_key: str
    id: str
    properties: bytes
    body: bytes


class Batch:
    """Parcels sent together, and what became of them."""

    __slots__ = ("_done", "fates", "missing")

    def __init__(self, size: int) -> None:
        self.fates = [Fate.UNKNOWN] * size
        self.missing = size
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(self, number: int, fate: Fate) -> None:
        self.fates[number] = fate
        self.missing -= 1
        if not self.missing:
            self.end()

    def end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def wait(self, until: float) -> None:
        """Until all are answered, or `until` (monotonic) has passed."""
        handle = asyncio.get_running_loop().call_later(max(0.0, until - time.monotonic()), self.end)
        await self._done
        handle.cancel()


def alarmed(url: str, alarm: str | None) -> str:
    """What an alarm of the server means, with its remedy."""
    return (
        f"{url}: RabbitMQ accepts no messages now, it has an alarm: {alarm}; free memory or disk on the server, or "
        "raise vm_memory_high_watermark or lower disk_free_limit"
    )


class Publisher:
    """The channel with confirms, of one connection."""

    def __init__(self, settings: Settings, connection: Connection, patience: Patience) -> None:
        self.connection = connection
        connection.patience = ROUND_TRIP
        self.topology = Topology(settings, connection)
        self._channel: Channel | None = None
        self._plain: Channel | None = None
        self._opening = asyncio.Lock()
        self._tag = 0
        self._flying: dict[int, tuple[Batch, int, str]] = {}
        self._returned: set[str] = set()
        self._ways: dict[tuple[str, str], bytes] = {}
        self._room = asyncio.Event()
        self._watch = Watch(connection, patience, lambda: next(iter(self._flying), None))

    async def open(self) -> None:
        await self._ready()

    async def send(self, parcels: Sequence[Parcel], until: float) -> list[Fate]:
        """Send them in order; returns what became of each by `until` (monotonic). Raises `BrokerUnavailable` when
        nothing was sent, and `ConfigError` when this user may not send."""
        connection = self.connection
        if connection.alarm is not None:
            await self._wait_for_alarm(until)
        channel = await self._ready()
        batch, flying, ways = Batch(len(parcels)), self._flying, self._ways
        write, frame_max, number = connection.write, connection.frame_max, channel.number
        pieces: list[bytes] = []
        for index, parcel in enumerate(parcels):
            if len(flying) >= WINDOW or not index % 256:
                if pieces and channel.error is None:
                    write(b"".join(pieces))
                pieces.clear()
                if not await self._has_room(channel, until):
                    if not index:
                        raise channel.error or BrokerUnavailable(f"{connection.login.url}: too much is under way")
                    break
            place = (parcel.exchange, parcel.routing_key)
            way = ways.get(place)
            if way is None:
                way = self._way(number, *place)
            self._tag += 1
            flying[self._tag] = (batch, index, parcel.id)
            pieces.append(way)
            pieces.append(wire.content_frames(number, parcel.properties, parcel.body, frame_max))
        if pieces and channel.error is None:
            write(b"".join(pieces))
        if channel.error is not None:
            batch.end()  # with what was answered before
        elif parcels:
            self._watch.start()
            await batch.wait(until)
        refusal = channel.error
        if isinstance(refusal, NoRight) and all(
            parcel.exchange == refusal.exchange and fate is Fate.UNKNOWN
            for parcel, fate in zip(parcels, batch.fates, strict=True)
        ):
            raise refusal
        return batch.fates

    async def _has_room(self, channel: Channel, until: float) -> bool:
        """Wait until more may be sent; `False` when there is no more time, or no more channel."""
        await self.connection.flow()
        while len(self._flying) >= WINDOW and channel.error is None:
            self._room.clear()
            self._watch.start()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await self._room.wait()
            except TimeoutError:
                return False
        return channel.error is None

    async def _wait_for_alarm(self, until: float) -> None:
        connection = self.connection
        alarm = connection.alarm
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await connection.unblocked()
        except TimeoutError:
            raise BrokerUnavailable(alarmed(connection.login.url, alarm)) from None
        if connection.error is not None:
            raise connection.error

    async def _ready(self) -> Channel:
        if self._channel is not None and self._channel.error is None:
            return self._channel
        async with self._opening:
            if self._channel is not None and self._channel.error is None:
                return self._channel
            channel = await self.connection.channel()
            await channel.call(spec.Confirm.Select(), spec.Confirm.SelectOk)
            self._tag, self._flying, self._ways = 0, {}, {}
            channel.confirmed, channel.returned, channel.ended = self._on_confirm, self._on_return, self._on_end
            self._channel = channel
            return channel

    def _way(self, number: int, exchange: str, routing_key: str) -> bytes:
        if len(self._ways) > 10_000:  # delayed tasks have keys of their own
            self._ways.clear()
        way = wire.publish_method(number, exchange, routing_key)
        self._ways[exchange, routing_key] = way
        return way

    def _on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        flying = self._flying
        tags = [tag]
        if multiple:
            tags = []
            for sent in flying:
                if sent > tag:
                    break
                tags.append(sent)
        fate = Fate.CONFIRMED if accepted else Fate.REFUSED
        for one in tags:
            found = flying.pop(one, None)
            if found is None:
                continue
            batch, index, id = found
            if self._returned and id in self._returned:
                self._returned.discard(id)
                batch.tell(index, Fate.RETURNED)
            else:
                batch.tell(index, fate)
        self._room.set()

    def _on_return(self, content: Content) -> None:
        # It comes before its confirm.
        self._returned.add(wire.read_id(content.properties)[0])

    def _on_end(self, error: PenstockError) -> None:
        flying, self._flying = self._flying, {}
        for batch, _, _ in flying.values():
            batch.end()
        self._room.set()

    async def send_plain(
        self, queue: str, props: bytes, body: bytes, returned: Callable[[Content], None], timeout: float
    ) -> None:
        """Send one message without waiting for a confirm; `returned` is called should nobody take it."""
        if self.connection.alarm is not None:
            await self._wait_for_alarm(time.monotonic() + timeout)
        if self._plain is None or self._plain.error is not None:
            self._plain = await self.connection.channel()
            self._plain.returned = returned
        await self.connection.flow()
        self._plain.publish(wire.publish_method(self._plain.number, "", queue), props, body)
