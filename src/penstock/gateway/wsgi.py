"""The gateway as a WSGI application, for servers without an event loop. Who waits, and who follows events, holds one of
the server's threads for as long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from penstock.app import Penstock
from penstock.gateway.answering import Answer
from penstock.gateway.asking import MOST_DIGITS, Request
from penstock.gateway.gateway import Authenticate, Gateway
from penstock.gateway.problems import Refused, too_large
from penstock.gateway.routes import ROUTES
from penstock.gateway.settings import GatewaySettings
from penstock.gateway.steps import Plan, ReadBody

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


def wsgi_app(app: Penstock, authenticate: Authenticate, settings: GatewaySettings | None = None) -> WsgiApp:
    """The gateway of `app` as `asgi_app` has it, for WSGI servers."""
    return WsgiGateway(Gateway(app, authenticate, settings or GatewaySettings(), ROUTES))


class WsgiGateway:
    """A WSGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = request_of(environ)
        answer = _carried_out(self.gateway.answer(request), environ)
        headers = list(answer.headers.items())
        if answer.events is None and answer.status != 304:
            headers.append(("content-length", str(len(answer.body))))
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        if request.method == "HEAD":
            answer.over()
            return []
        return [answer.body] if answer.events is None else _Stream(answer)


class _Stream:
    """The bytes of an answer's events, as they come. The server closes it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        events = self._answer.events
        assert events is not None  # or there would be no stream
        try:
            step = next(events)
            while True:
                if isinstance(step, bytes):
                    yield step
                    step = next(events)
                    continue
                try:
                    found = step.block()
                except Exception as error:
                    step = events.throw(error)
                else:
                    step = events.send(found)
        except StopIteration:
            pass
        finally:
            self.close()

    def close(self) -> None:
        if self._answer.events is not None:
            self._answer.events.close()
        self._answer.over()


def _carried_out(plan: Plan[Answer], environ: Environ) -> Answer:
    try:
        step = next(plan)
        while True:
            try:
                found = _body(environ, step.most) if isinstance(step, ReadBody) else step.block()
            except Exception as error:
                step = plan.throw(error)
            else:
                step = plan.send(found)
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def _body(environ: Environ, most: int) -> bytes:
    """Raises `Refused`."""
    length = environ.get("CONTENT_LENGTH") or ""
    if not length and not environ.get("wsgi.input_terminated"):
        return b""  # without either a read might never end
    if length and not (length.isascii() and length.isdecimal()):
        raise Refused(400, "bad-length", "the Content-Length is no number")
    if len(length) > MOST_DIGITS or (length and int(length) > most):
        raise too_large(most)
    size = int(length) if length else most + 1
    body: bytes = environ["wsgi.input"].read(size)
    if len(body) > most:
        raise too_large(most)
    if length and len(body) < size:
        raise Refused(400, "cut-short", "the body ended before its Content-Length")
    return body


def request_of(environ: Environ) -> Request:
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return Request(
        environ["REQUEST_METHOD"],
        # WSGI carries the bytes of a path as the characters of Latin-1.
        environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace"),
        environ.get("QUERY_STRING", ""),
        headers,
        environ.get("REMOTE_ADDR", ""),
        environ.get("SCRIPT_NAME", ""),
    )
