"""The gateway as an ASGI application: for `penstock gateway`, and to be mounted in one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from penstock.app import Penstock
from penstock.gateway.answering import Answer, Events
from penstock.gateway.asking import MOST_DIGITS, Request
from penstock.gateway.gateway import Authenticate, Gateway
from penstock.gateway.problems import too_large, too_slow
from penstock.gateway.routes import ROUTES
from penstock.gateway.settings import GatewaySettings
from penstock.gateway.steps import Plan, ReadBody, Step, Waiting

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
CHUNK = 256 << 10
"""Bytes of an answer that are handed to the server at once."""


class Gone(Exception):
    """The client has left in the middle of its request."""


def asgi_app(app: Penstock, authenticate: Authenticate, settings: GatewaySettings | None = None) -> AsgiGateway:
    """The gateway of `app`, for whom `authenticate` lets in: a `TokenFile`, `BrokerUsers`, or a function of your
    own."""
    return AsgiGateway(Gateway(app, authenticate, settings or GatewaySettings(), ROUTES))


class AsgiGateway:
    """An ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._waits: set[asyncio.Future[None]] = set()

    def drain(self) -> None:
        """Let nobody wait any more: calls that wait are answered with their address, streams end. From the loop."""
        self.gateway.draining = True
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        elif kind == "lifespan":
            await _lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope)
        closes = scope.get("http_version", "1.1").startswith("1")  # later versions have no such header
        talk = _Talk(receive, request, self.gateway.settings.body_timeout, closes)
        plan = self.gateway.answer(request)
        answer: Answer | None = None
        try:
            answer = await self._carried_out(plan, talk)
            await self._send(answer, request, talk, send)
        except Gone:
            pass
        finally:
            plan.close()
            if answer is not None:
                answer.over()
            talk.close()

    async def _carried_out(self, plan: Plan[Answer], talk: _Talk) -> Answer:
        try:
            step = next(plan)
            while True:
                try:
                    found = await talk.body(step.most) if isinstance(step, ReadBody) else await self._done(step, talk)
                except Gone:
                    raise
                except Exception as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(found)
        except StopIteration as end:
            answer: Answer = end.value
            return answer

    async def _done(self, step: Step, talk: _Talk) -> Any:
        if not isinstance(step, Waiting):
            return await step.awaited()
        if self.gateway.draining:
            return None
        wait = asyncio.ensure_future(step.awaited())
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits.add(cut)
        try:
            await asyncio.wait((wait, cut, talk.gone()), return_when=asyncio.FIRST_COMPLETED)
            return wait.result() if wait.done() else None
        finally:
            self._waits.discard(cut)
            cut.cancel()
            if not wait.done():
                wait.cancel()
                await asyncio.gather(wait, return_exceptions=True)

    async def _send(self, answer: Answer, request: Request, talk: _Talk, send: Send) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        if talk.unread and talk.closes:
            headers.append((b"connection", b"close"))
        if answer.events is None and answer.status != 304:
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if answer.events is not None and request.method != "HEAD":
            await self._stream(answer.events, talk, send)
        body = b"" if request.method == "HEAD" else answer.body
        last = max(0, (len(body) - 1) // CHUNK) * CHUNK
        for start in range(0, last, CHUNK):
            # As the client reads it: this request is open, and its client's, until nearly all of it is gone.
            await send({"type": "http.response.body", "body": body[start : start + CHUNK], "more_body": True})
        await send({"type": "http.response.body", "body": body[last:]})

    async def _stream(self, events: Events, talk: _Talk, send: Send) -> None:
        try:
            step = next(events)
            while not talk.gone().done():
                if isinstance(step, bytes):
                    await send({"type": "http.response.body", "body": step, "more_body": True})
                    step = next(events)
                    continue
                try:
                    found = await self._done(step, talk)
                except Exception as error:
                    step = events.throw(error)
                else:
                    step = events.send(found)
        except StopIteration:
            pass
        finally:
            events.close()


class _Talk:
    """What comes from the client of one request."""

    def __init__(self, receive: Receive, request: Request, timeout: float, closes: bool) -> None:
        self.closes = closes
        self._receive = receive
        self._request = request
        self._timeout = timeout
        self._gone: asyncio.Task[None] | None = None
        self.unread = False
        """There is a body of which nobody has seen the end."""

    async def body(self, most: int) -> bytes:
        """Raises `Refused` for what is too large or too slow, `Gone`."""
        self.unread = True
        length = self._request.headers.get("content-length", "")
        if length.isascii() and length.isdecimal() and (len(length) > MOST_DIGITS or int(length) > most):
            raise too_large(most)
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._whole(most)
        except TimeoutError as error:
            raise too_slow(self._timeout) from error
        self.unread = False
        return body

    async def _whole(self, most: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise too_large(most)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def gone(self) -> asyncio.Task[None]:
        """Done when the client has left."""
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._leaving())
        return self._gone

    async def _leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def close(self) -> None:
        if self._gone is not None:
            self._gone.cancel()


def request_of(scope: Scope) -> Request:
    root, path = scope.get("root_path", ""), scope["path"]
    client = scope.get("client")
    return Request(
        scope["method"],
        path.removeprefix(root) if root else path,
        scope["query_string"].decode("latin-1"),
        _headers(scope["headers"]),
        client[0] if client else "",
        root,
    )


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name. What is given twice is one value with a comma, so that no two servers take different ones for it."""
    found: dict[str, str] = {}
    for raw, value in pairs:
        name = raw.decode("latin-1")
        text = value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
