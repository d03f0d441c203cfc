"""Back pressure for one's own application, in both kinds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import pytest

from penstock.errors import QueueFull
from penstock.gateway import AsgiBackPressure, LittlesLaw, WsgiBackPressure
from tests.unit.gateway.faces import Reply, over_asgi

FULL = QueueFull("mail", 10, 10, 3.2)


def over_wsgi(app: Any) -> Reply:
    started: list[Any] = []
    parts = app({"REQUEST_METHOD": "GET"}, lambda status, headers: started.append((status, headers)))
    body = b"".join(parts)
    if hasattr(parts, "close"):
        parts.close()
    status, headers = started[-1]
    return Reply(int(status.split()[0]), dict(headers), body)


class Kind:
    """An application of one kind, which raises what it is told to."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.error: Exception | None = None

    def asked(self, limiter: LittlesLaw | None = None) -> Reply:
        if self.kind == "wsgi":
            return over_wsgi(WsgiBackPressure(self._wsgi, limiter))
        return asyncio.run(over_asgi(AsgiBackPressure(self._asgi, limiter), "GET", "/"))

    def _wsgi(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if self.error is not None:
            raise self.error
        start_response("200 OK", [])
        return [b"done"]

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


def test_a_full_queue_becomes_come_again(kind: Kind) -> None:
    kind.error = FULL
    reply = kind.asked()
    assert (reply.status, reply.headers["retry-after"]) == (503, "4")
    assert reply.json["type"] == "urn:penstock:queue-full"


def test_other_errors_and_answers_pass(kind: Kind) -> None:
    assert kind.asked().body == b"done"
    kind.error = KeyError("mine")
    with pytest.raises(KeyError):
        kind.asked()


def test_a_crowd_is_told_to_come_again(kind: Kind) -> None:
    limiter = LittlesLaw(least=1, most=1)
    assert kind.asked(limiter).status == 200
    limiter.enter()
    reply = kind.asked(limiter)
    assert (reply.status, reply.json["type"]) == (503, "urn:penstock:busy")
    assert int(reply.headers["retry-after"]) >= 1
    limiter.leave()
    for error in (FULL, KeyError()):
        kind.error = error
        with contextlib.suppress(KeyError):
            kind.asked(limiter)
        assert limiter.inside == 0
