"""A channel of a connection: calls and their answers, contents that come, confirms of what went."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika import spec

from penstock.engines.rabbitmq import faults, wire
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import BrokerUnavailable, PenstockError

if TYPE_CHECKING:
    from penstock.engines.rabbitmq.connection import Connection

TIMEOUT = 10.0
"""Seconds for an answer of the server to a call on a channel."""
_SIZE = struct.Struct(">Q")


class Unanswered(BrokerUnavailable):
    """The server did not answer a call in time."""


class Channel:
    """Not thread-safe: for the loop thread only. `deliver`, `returned`, `confirmed`, `cancelled` and `ended` are set by
    who uses it."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.error: PenstockError | None = None
        self.deliver: Callable[[Content], None] = lambda content: None
        self.returned: Callable[[Content], None] = lambda content: None
        self.confirmed: Callable[[int, bool, bool], None] = lambda tag, multiple, accepted: None
        self.cancelled: Callable[[str], None] = lambda consumer: None
        self.ended: Callable[[PenstockError], None] = lambda error: None
        self._calls: deque[tuple[tuple[type, ...], asyncio.Future[Any]]] = deque()
        self._content: Content | None = None
        self._parts: list[bytes] = []
        self._missing = 0

    async def call(self, method: Any, *answers: type, timeout: float = TIMEOUT) -> Any:
        """Send `method`, return the first answer of these types. Several calls may be under way; those of the
        same kind are answered in turn."""
        return await self.expect(answers, wire.method_frame(self.number, method), timeout)

    async def expect(self, answers: tuple[type, ...], data: bytes, timeout: float = TIMEOUT) -> Any:
        return await self.wait(self.begin(answers, data), timeout)

    def begin(self, answers: tuple[type, ...], data: bytes) -> asyncio.Future[Any]:
        """Send, here and now: nothing that others send comes between several of these."""
        if self.error is not None:
            raise self.error
        self.connection.write(data)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.append((answers, future))
        return future

    async def wait(self, future: asyncio.Future[Any], timeout: float = TIMEOUT) -> Any:
        """The answer to what was begun."""
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            # Whatever it answers later would be taken for the answer to something else.
            connection = self.connection
            error = Unanswered(f"{connection.login.url}: {connection.address} did not answer within {timeout:.3g} s")
            self.connection.drop(self)
            self.end(error)
            raise error from None

    async def close(self) -> None:
        """What was delivered on it and not acknowledged goes back into its queue."""
        if self.error is None:
            await self.call(spec.Channel.Close(200, "", 0, 0), spec.Channel.CloseOk)
            self.connection.drop(self)
            self.end(BrokerUnavailable(f"{self.connection.login.url}: the channel is closed"))

    def publish(self, way: bytes, props: bytes, body: bytes) -> None:
        self.connection.write(way + wire.content_frames(self.number, props, body, self.connection.frame_max))

    def ack(self, tag: int, multiple: bool) -> None:
        self.connection.write(wire.ack_frame(self.number, tag, multiple))

    def requeue(self, tag: int) -> None:
        self.connection.write(wire.nack_frame(self.number, tag, False))

    # -- what the connection calls

    def on_method(self, method: Any) -> None:
        if isinstance(method, spec.Channel.Close):
            self.connection.write(wire.method_frame(self.number, spec.Channel.CloseOk()))
            self.connection.drop(self)
            self.end(faults.of_close(self.connection.login.url, method.reply_code, method.reply_text))
        elif isinstance(method, spec.Basic.Cancel):
            self.cancelled(method.consumer_tag)
        else:
            self._answer(method)

    def _answer(self, answer: Any) -> None:
        # Not always in turn: what a quorum queue answers is overtaken by what the channel itself does.
        for call in self._calls:
            wanted, future = call
            if isinstance(answer, wanted):
                self._calls.remove(call)
                if not future.done():
                    future.set_result(answer)
                return

    def on_content(self, content: Content) -> None:
        self._content = content
        self._parts = []

    def on_header(self, buffer: bytes, at: int, end: int) -> None:
        content = self._content
        if content is None:
            return
        (self._missing,) = _SIZE.unpack_from(buffer, at + 4)
        content.properties = buffer[at + 12 : end]
        if not self._missing:
            self._complete(content)

    def on_body(self, part: bytes) -> None:
        content = self._content
        if content is None:
            return
        self._missing -= len(part)
        if self._missing > 0:
            self._parts.append(part)
            return
        content.body = b"".join((*self._parts, part)) if self._parts else part
        self._complete(content)

    def _complete(self, content: Content) -> None:
        self._content = None
        if content.consumer:
            self.deliver(content)
        elif content.note:
            self.returned(content)
        else:
            self._answer(content)

    def on_confirm(self, tag: int, multiple: bool, *, accepted: bool) -> None:
        self.confirmed(tag, multiple, accepted)

    def end(self, error: PenstockError) -> None:
        """It is closed, or its connection is lost."""
        if self.error is not None:
            return
        self.error = error
        calls, self._calls = self._calls, deque()
        for _, future in calls:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may wait any more
        self.ended(error)
