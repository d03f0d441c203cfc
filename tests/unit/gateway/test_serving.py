"""The connection as uvicorn's parser hears it: what a client writes beside requests and bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from penstock.gateway.serving import MAX_HEAD, UPGRADE, _protocol

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"
UPGRADES = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"


class Transport(asyncio.Transport):
    """As uvloop's, which raises for what is written when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Site:
    """One connection to an application that answers with the headers and the body that it was given."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[bytes, bytes], bytes]] = []
        protocol = _protocol(10, 60.0)
        config = uvicorn.Config(self._app, http=protocol, ws="none", interface="asgi3", log_config=None)
        config.load()
        kind: Any = config.http_protocol_class
        self.connection = kind(config=config, server_state=ServerState(), app_state={})
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append((dict(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def hears(self, *parts: bytes) -> bytes:
        """What was written by the time that all of `parts` have come."""
        for part in parts:
            self.connection.data_received(part)
            for _ in range(10):
                await asyncio.sleep(0)
        written = self.transport.written
        self.connection.connection_lost(None)
        return written


def ask(*parts: bytes) -> tuple[Site, bytes]:
    async def main() -> tuple[Site, bytes]:
        site = Site()
        return site, await site.hears(*parts)

    return asyncio.run(main())


@pytest.mark.parametrize("cut", [0, 20, len(CHUNKED) + 12])
def test_what_stands_behind_a_body_is_no_header(cut: int) -> None:
    data = CHUNKED + b"2\r\nok\r\n0\r\nauthorization: theirs\r\n\r\n"
    site, written = ask(data[:cut], data[cut:])
    assert written.startswith(b"HTTP/1.1 200")
    [(headers, body)] = site.asked
    assert b"authorization" not in headers
    assert body == b"ok"


@pytest.mark.parametrize(
    ("begin", "again"),
    [(b"0\r\n", b"x: y\r\n"), (b"0\r\nx: ", b"y"), (b"2;", b"y"), (b"0\r\nx", b"y")],
    ids=["trailers", "one trailer", "an extension", "a name"],
)
def test_what_is_said_beside_a_body_is_bounded(begin: bytes, again: bytes) -> None:
    one = again * (10_000 // len(again))
    site, written = ask(CHUNKED + b"2\r\nok\r\n" + begin, *[one] * (MAX_HEAD // len(one) + 2))
    assert written.startswith(b"HTTP/1.1 431")
    assert site.transport.closed


def test_a_large_body_is_no_head() -> None:
    size = 4 * MAX_HEAD
    data = PLAIN.replace(b"length: 2", b"length: %d" % size) + b"\r\n" + b"x" * size
    site, written = ask(data[: size // 2], data[size // 2 :])
    assert written.startswith(b"HTTP/1.1 200")
    assert len(site.asked[0][1]) == size


@pytest.mark.parametrize("head", [PLAIN, CHUNKED[:-2]], ids=["length", "chunks"])
def test_a_body_that_the_parser_would_skip_is_refused(head: bytes) -> None:
    """As Java's client and `curl --http2` send them."""
    site, written = ask(head + UPGRADES + b"\r\n" + (b"ok" if head is PLAIN else b"2\r\nok\r\n0\r\n\r\n"))
    assert written.startswith(b"HTTP/1.1 400")
    assert UPGRADE.encode() in written
    assert site.transport.closed
    assert site.asked == []


def test_an_upgrade_without_a_body_is_answered_as_it_is() -> None:
    head = b"GET / HTTP/1.1\r\nhost: x\r\n"
    site, written = ask(head + UPGRADES + b"\r\n", head + b"\r\n", head + UPGRADES + b"content-length: 0\r\n\r\n")
    assert written.count(b"HTTP/1.1 200") == 3
    assert len(site.asked) == 3


def test_an_answer_to_who_has_gone_is_no_error() -> None:
    """Else anybody could fill the log with tracebacks."""
    wrong: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
        await Site().hears(PLAIN + b"\r\nok" + b"GET / HTTP/1.1\r\nbad header\r\n\r\n")

    asyncio.run(main())
    assert wrong == []
