"""For one's own web application: a full queue becomes 503 with Retry-After, and no more requests are let in than it can
serve in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from penstock.errors import QueueFull
from penstock.gateway.answering import Answer
from penstock.gateway.asgi import AsgiApp, Receive, Scope, Send
from penstock.gateway.limiter import LittlesLaw
from penstock.gateway.problems import Refused, problem_answer, refusal
from penstock.gateway.wsgi import Environ, StartResponse, WsgiApp


def full(error: QueueFull) -> Answer:
    refused = refusal(error)
    assert refused is not None  # the table has it
    return problem_answer(refused)


def crowded(after: float) -> Answer:
    return problem_answer(Refused.later(503, "busy", "as many requests are being served as can be in time", after))


class AsgiBackPressure:
    """ASGI middleware. `limiter` is optional; requests to the same application share one."""

    def __init__(self, app: AsgiApp, limiter: LittlesLaw | None = None) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        after = self._limiter.enter() if self._limiter is not None else None
        if after is not None:
            await _send(crowded(after), send)
            return
        try:
            await self._guarded(scope, receive, send)
        finally:
            if self._limiter is not None:
                self._limiter.leave()

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except QueueFull as error:
            if started:
                raise
            await _send(full(error), send)


class WsgiBackPressure:
    """WSGI middleware. A request has left when the server has closed its answer."""

    def __init__(self, app: WsgiApp, limiter: LittlesLaw | None = None) -> None:
        self._app = app
        self._limiter = limiter

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        after = self._limiter.enter() if self._limiter is not None else None
        if after is not None:
            return _started(crowded(after), start_response)
        try:
            body = self._app(environ, start_response)
        except BaseException as error:
            if self._limiter is not None:
                self._limiter.leave()
            if not isinstance(error, QueueFull):
                raise
            return _started(full(error), start_response)
        return body if self._limiter is None else _Leaving(body, self._limiter)


class _Leaving:
    def __init__(self, body: Iterable[bytes], limiter: LittlesLaw) -> None:
        self._body = body
        self._limiter: LittlesLaw | None = limiter

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        limiter, self._limiter = self._limiter, None
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if limiter is not None:
                limiter.leave()


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _started(answer: Answer, start_response: StartResponse) -> list[bytes]:
    from http import HTTPStatus

    headers = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
    return [answer.body]
