"""What an engine has open in this process: two connections, as RabbitMQ advises, so that a publisher that is blocked
by an alarm does not stop consuming, and notes on this machine. A forked child makes its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any

from penstock.coordinator import WorkerInfo
from penstock.engines.network.starts import Starts
from penstock.engines.rabbitmq.charges import Charges
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.consumers import Consumers
from penstock.engines.rabbitmq.link import Link
from penstock.engines.rabbitmq.news import News, RollCall, listen, parcel
from penstock.engines.rabbitmq.posting import Post
from penstock.engines.rabbitmq.replies import Replies
from penstock.engines.rabbitmq.settings import Settings
from penstock.engines.rabbitmq.settling import Settler
from penstock.errors import PenstockError

CONNECTING = 10.0
"""Seconds to wait for a connection where the call has no time of its own."""
STALL = 5.0
"""Seconds within which a connection is lost that a stall has cost."""


class Core:
    def __init__(self, settings: Settings, replies: Replies) -> None:
        self.settings = settings
        self.replies = replies
        self.starts = Starts(_place(settings))
        self.charges = Charges(self.starts, os.path.join(self.starts.folder(), "charges"))
        self.post = Post(settings, settings.clock, replies.next_id)
        self.consuming: Link[Consumers] = Link(settings, self._prepare)
        self.settler = Settler(self.post, self.charges, settings.clock)
        self.worker: WorkerInfo | None = None
        self.roll_call = RollCall()
        self.stops: set[asyncio.Event] = set()
        self._suspects: tuple[float, list[str]] = (0.0, [])
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def consumers(self) -> Consumers | None:
        """Those of the connection that lives."""
        session = self.consuming.session
        return session if session is not None and session.connection.error is None else None

    async def _prepare(self, connection: Connection) -> Consumers:
        consumers = Consumers(self.settings, connection)
        connection.on_stall.append(self._suspect)
        connection.on_lost.append(self._accuse)
        if not self.settings.passive:
            await listen(connection, consumers.topology, lambda news: self._hear(consumers, news))
        return consumers

    def _suspect(self) -> None:
        """This process did not run for a while: what it runs now has held the interpreter."""
        if self.worker is not None:
            ids = [str(receipt[-1]) for receipt in self.starts.started(self.worker.id)]
            self._suspects = (time.monotonic(), ids)

    def _accuse(self, error: PenstockError) -> None:
        """If that cost the connection, it counts as an attempt: it would come back for ever."""
        when, ids = self._suspects
        if ids and time.monotonic() - when < STALL:
            self.charges.charge(ids)
        self._suspects = (0.0, [])

    def _hear(self, consumers: Consumers, news: News) -> None:
        if news.lane:
            consumers.heard(news.lane)
        elif news.asks and self.worker is not None:
            self.tell(News(answers=news.asks, worker=self.worker))
        else:
            self.roll_call.hear(news)

    def tell(self, news: News) -> None:
        self.spawn(self._tell(news))

    async def _tell(self, news: News) -> None:
        publisher = await self.post.link.get(CONNECTING)
        await publisher.topology.news()
        await publisher.send([parcel(news)], time.monotonic() + CONNECTING)

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """In the background, on the loop; an error of ours is its own business."""
        task = asyncio.get_running_loop().create_task(_quietly(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self.starts.close()
        await asyncio.gather(
            self.consuming.close(), self.post.link.close(), self.replies.close(), return_exceptions=True
        )


def _place(settings: Settings) -> str:
    """The server, by whichever scheme and user it is called."""
    hosts = ",".join(f"{host}:{port}" for host, port in sorted(settings.address.hosts))
    return f"rabbitmq://{hosts}/{settings.login.virtual_host}"


async def _quietly(call: Coroutine[Any, Any, None]) -> None:
    try:
        await call
    except PenstockError:
        return  # who waits for news goes on without
