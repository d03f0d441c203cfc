"""One connection: a command goes out at once, and while it is under way, others go together, once a turn of the loop.

Written on hiredis itself, because a client of one call at a time costs more than the server does for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from penstock.engines.redis.faults import Broken

Part = str | bytes | int | float
Push = Callable[[list[Any]], None]
PUSHES = (b"message", b"subscribe", b"unsubscribe")


class Wire(asyncio.Protocol):
    """`push` is given what comes unasked, on a connection that has subscribed."""

    def __init__(self, push: Push | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._push = push
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection has ended, with the reason."""
        self.heard = self._loop.time()
        """When the server was last heard, or had nothing to say."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def call(self, *parts: Part) -> asyncio.Future[Any]:
        """The answer to come: an error of the server is a `hiredis.ReplyError` as a value. Raises `Broken`."""
        if self.lost.done():
            raise Broken(self.lost.result(), sent=False)
        idle = not self._pending
        if idle:
            self.heard = self._loop.time()
        elif not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(parts))  # type: ignore[arg-type]  # the stub means: of any length
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(answer)
        if idle and len(self._out) == 1:
            self._flush()  # nobody else's to wait for
        return answer

    def tell(self, *parts: Part) -> None:
        """Send a command whose answer comes as a push."""
        unasked = self.call(*parts)
        self._pending.remove(unasked)

    def silence(self) -> float:
        """Seconds for which the server has owed an answer; 0 when it owes none."""
        return self._loop.time() - self.heard if self._pending else 0.0

    def close(self, reason: str = "closed") -> None:
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost.done():
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                self._answered(answer)
        except hiredis.ProtocolError as error:
            self.close(f"not a Redis server: {error}")

    def _answered(self, answer: Any) -> None:
        if self._push is not None and isinstance(answer, list) and answer and answer[0] in PUSHES:
            self._push(answer)
            return
        if not self._pending:
            self.close("it answers what nobody asked")
            return
        waiting = self._pending.popleft()
        if not waiting.done():  # its caller may have been cancelled
            waiting.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection broke ({error or 'closed by the server'})")

    def _end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        waiting, self._pending = self._pending, deque()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(Broken(reason, sent=True))
                answer.exception()  # its caller may be gone


async def checked(answers: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The answers, the first error among them raised."""
    found = [await answer for answer in answers]
    for one in found:
        if isinstance(one, hiredis.ReplyError):
            raise one
    return found
