"""The gateway served by uvicorn: what is slow is cut off, and what runs is finished before it ends."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from penstock.errors import ConfigError
from penstock.gateway.asgi import AsgiGateway

log = logging.getLogger("penstock.gateway")
MAX_HEAD = 64 << 10
"""Bytes of a request up to its body."""
KEEP_ALIVE = 15
"""Seconds without a request after which a connection is closed."""
SPARE = 256
"""File descriptors that are not for clients."""


class Place(Struct, frozen=True):
    """Where to listen, and what is cut off; times in seconds. `timeout`: a request must have come by then, from the
    opening of its connection or its first byte; and so long may its answer be left unread, once buffers are full."""

    host: str
    port: int
    timeout: float = 15.0
    max_connections: int = 10_000
    grace: float = 30.0
    tls_cert: str | None = None
    tls_key: str | None = None


def serve(gateway: AsgiGateway, place: Place, say: Callable[[str], None]) -> int:
    """Until TERM or Ctrl-C; returns the exit code. `say` is given lines for people."""
    most = _descriptors(place.max_connections)
    config = uvicorn.Config(
        gateway,
        host=place.host,
        port=place.port,
        http=_protocol(most, place.timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(place.grace)),
        ssl_certfile=place.tls_cert,
        ssl_keyfile=place.tls_key,
    )
    server = _Server(config, gateway, say)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's word for a port that is taken
        raise ConfigError(
            f"cannot listen on {place.host}:{place.port}; its log says why: take another --port"
        ) from error
    return 0


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, gateway: AsgiGateway, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._say = say

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                scheme = "https" if self.config.ssl_certfile else "http"
                self._say(f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: Any = None) -> None:
        self._say("draining")
        self._gateway.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first ends in order, a second one at once. Not uvicorn's, which would kill the process by the signal."""
        self.force_exit, self.should_exit = self.should_exit, True


def _protocol(most: int, seconds: float) -> type[HttpToolsProtocol]:
    """The protocol of one connection, of which there are up to `most`."""

    class Bounded(_Bounded):
        max_connections = most
        timeout = seconds

    return Bounded


class _Bounded(HttpToolsProtocol):
    """uvicorn waits for ever for what a client begins and does not finish."""

    max_connections: int
    timeout: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head = 0
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._expect_request()
        if len(self.connections) > self.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._received()
        self._sent()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head >= 0:
            self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD:
            self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0
        self._expect_request()

    def on_headers_complete(self) -> None:
        self._head = -1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._received()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def is_idle(self) -> bool:
        """It asks for nothing, or has not said what."""
        cycle: object = self.cycle
        return not isinstance(cycle, RequestResponseCycle) or cycle.response_complete

    def _make_room(self) -> None:
        idle = next((one for one in self.connections if isinstance(one, _Bounded) and one.is_idle()), self)
        idle.transport.abort()

    def _expect_request(self) -> None:
        if self._receiving is None:
            self._receiving = self.loop.call_later(self.timeout, self._too_slow)

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _too_slow(self) -> None:
        self._receiving = None
        if self.is_idle():
            self.transport.abort()
        else:
            self._expect_request()  # the gateway's own time-out for bodies is not over, or a request waits before it


def _descriptors(wanted: int) -> int:
    """Have as many as the system allows; returns how many connections that is enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE
    if soft < needed:
        soft = min(needed, hard) if hard != resource.RLIM_INFINITY else needed
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < needed:
        log.warning("up to %d connections: the limit of open files is %d", soft - SPARE, soft)
    return max(1, min(wanted, soft - SPARE))
