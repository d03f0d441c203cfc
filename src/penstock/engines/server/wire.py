"""A connection on the engine's loop: requests go out once a turn, answers find who asked by their number."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

import msgspec

from penstock.broker import Key
from penstock.engines.server.faults import Broken
from penstock.errors import PenstockError
from penstock.outcome import Report
from penstock.protocol.frames import FrameError, Frames, frame
from penstock.protocol.refusals import error_of
from penstock.protocol.replies import Added as AddedParts
from penstock.protocol.replies import (
    Blocked,
    Failed,
    Published,
    Refused,
    Stepped,
    Told,
    Unblocked,
    Value,
    Welcome,
    decode_reply,
    decode_welcome,
)
from penstock.protocol.requests import Hello, Ping, Pong, StepRequest

Tell = Callable[[list[Report]], None]
Added = Callable[[list[Key]], None]
PARTING = 0.5
"""Seconds for the end of a connection."""
ANSWERS = (Published, Stepped, Value)


class LoopWire(asyncio.Protocol):
    def __init__(self, tell: Tell, added: Added) -> None:
        """`tell` is given the reports that the broker pushes, `added` the keys of tasks with new parts."""
        self._loop = asyncio.get_running_loop()
        self._tell, self._added = tell, added
        self._frames = Frames()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._steps: dict[int, StepRequest] = {}
        self._welcome: asyncio.Future[Welcome] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection has ended, with the reason."""
        self.refusal: PenstockError | None = None
        """What the broker said when it ended the connection."""
        self._gone = asyncio.Event()
        self.heard = self._loop.time()
        self.blocked = False
        """The broker reads nothing now: a queue to which this connection publishes is full."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    async def greet(self, hello: Hello) -> Welcome:
        """Sign in. Raises what the broker refuses it with, or `Broken`."""
        self._send(hello)
        return await self._welcome

    async def exchange(self, number: int, request: object, seconds: float) -> Any:
        """See `penstock.engines.server.link.Wire`."""
        if self.lost.done():
            raise Broken(self.lost.result(), sent=False)
        alone = not self._pending and not self._out
        if not self._pending:
            self.heard = self._loop.time()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[number] = answer
        if isinstance(request, StepRequest):
            self._steps[number] = request
        self._send(request)
        if alone:
            self._flush()  # nobody else's to wait for
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            self._pending.pop(number, None)
            self._steps.pop(number, None)

    def waiting_steps(self) -> list[StepRequest]:
        return list(self._steps.values())

    def tell(self, request: object) -> None:
        """Send what is not answered, if the connection is there."""
        if not self.lost.done():
            self._send(request)

    @property
    def awaits(self) -> bool:
        return bool(self._pending)

    def _send(self, request: object) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame(request))

    def _flush(self) -> None:
        if self._transport is not None and self._out and not self.lost.done():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            for body in self._frames.feed(data):
                self._take(body)
        except (FrameError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.close(f"the broker sent something that cannot be read: {error}")

    def _take(self, body: memoryview) -> None:
        if not self._welcome.done():
            greeting = decode_welcome(body)
            if isinstance(greeting, Welcome):
                self._welcome.set_result(greeting)
            else:
                self._refused(greeting)
            return
        reply = decode_reply(body)
        kind = type(reply)
        if kind in ANSWERS:
            answer = self._pending.pop(reply.number, None)
            if answer is not None and not answer.done():
                answer.set_result(reply)
        elif kind is Failed:
            answer = self._pending.pop(reply.number, None)
            if answer is not None and not answer.done():
                answer.set_exception(error_of(reply.code, reply.text))
        elif kind is Told:
            self._tell(reply.reports)
        elif kind is AddedParts:
            self._added(reply.keys)
        elif kind is Ping:
            self._send(Pong())
        elif kind is Refused:
            self._refused(reply)
        elif kind is Blocked:
            self.blocked = True
        elif kind is Unblocked:
            self.blocked = False

    def _refused(self, refused: Refused) -> None:
        self.refusal = error_of(refused.code, refused.text)
        self.close(f"the broker ended the connection: {refused.text}")

    def ping(self) -> None:
        self.tell(Ping())

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self._end(f"the connection was lost{': ' + str(exc) if exc else ''}")

    def close(self, reason: str = "closed") -> None:
        self._end(reason)
        if self._transport is not None:
            self._transport.close()

    async def leave(self, reason: str) -> None:
        """Close, and see that the socket is closed: the loop may end after this, and TLS says good-bye at length."""
        self.close(reason)
        if self._transport is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING):
                await self._gone.wait()
        self._transport.abort()
        await asyncio.sleep(0)

    def abort(self, reason: str) -> None:
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    def _remedy(self) -> str:
        if self._transport is not None and self._transport.get_extra_info("ssl_object") is not None:
            return "if it wants a certificate of its clients, give yours with ?cert= and ?key="
        return "if it speaks TLS, write penstocks://"

    def _end(self, reason: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if not self._welcome.done():
            early = f"{reason}, before the broker had said who it is: {self._remedy()}"
            self._welcome.set_exception(self.refusal or Broken(early, sent=False))
            self._welcome.exception()
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            if not answer.done():
                answer.set_exception(Broken(reason, sent=True))
                answer.exception()  # it is looked at by who waits, if anybody still does
