"""What processes tell each other over a fanout exchange: that a lane is new, who works, and who asks for that."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import msgspec
from msgspec import Struct
from pika import spec

from penstock.coordinator import WorkerInfo
from penstock.engines.rabbitmq import naming, wire
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.publisher import Parcel
from penstock.engines.rabbitmq.topology import Topology
from penstock.engines.rabbitmq.wire import Content


class News(Struct, omit_defaults=True):
    """One item: what it does not say is empty."""

    lane: str = ""
    asks: str = ""
    """Who works? Answer with this."""
    answers: str = ""
    worker: WorkerInfo | None = None


_encode = msgspec.msgpack.encode
_decoder = msgspec.msgpack.Decoder(News)


def parcel(news: News) -> Parcel:
    id = f"news-{secrets.token_hex(8)}"
    return Parcel(naming.NEWS, "", id, wire.properties(id, "news", "msgpack", mode=wire.TRANSIENT), _encode(news))


def lane_parcel(lane: str) -> Parcel:
    return parcel(News(lane=lane))


async def listen(connection: Connection, topology: Topology, hear: Callable[[News], None]) -> None:
    """Call `hear` with all that is told from now on, while the connection lives."""
    await topology.news()
    channel = await connection.channel()

    def deliver(content: Content) -> None:
        try:
            news = _decoder.decode(content.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # of another version, or a stranger's
        hear(news)

    channel.deliver = deliver
    declared = await channel.call(spec.Queue.Declare(0, "", exclusive=True, auto_delete=True), spec.Queue.DeclareOk)
    await channel.call(spec.Queue.Bind(0, declared.queue, naming.NEWS, ""), spec.Queue.BindOk)
    await channel.call(spec.Basic.Consume(0, declared.queue, "news", no_ack=True), spec.Basic.ConsumeOk)


class RollCall:
    """Who answered a question."""

    def __init__(self) -> None:
        self._asked: dict[str, list[WorkerInfo]] = {}

    def hear(self, news: News) -> None:
        found = self._asked.get(news.answers)
        if found is not None and news.worker is not None:
            found.append(news.worker)

    async def ask(self, send: Callable[[News], object], seconds: float) -> list[WorkerInfo]:
        """`send` a question; who has answered it after `seconds`."""
        nonce = secrets.token_hex(8)
        found = self._asked[nonce] = []
        try:
            send(News(asks=nonce))
            await asyncio.sleep(seconds)
        finally:
            del self._asked[nonce]
        return list(found)
