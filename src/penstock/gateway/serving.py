"""The gateway served by uvicorn: what is slow is cut off, and what runs is finished before it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from penstock.errors import ConfigError
from penstock.gateway.asgi import AsgiGateway
from penstock.gateway.settings import check_count, check_seconds
from penstock.gateway.settings_file import SettingsFile

log = logging.getLogger("penstock.gateway")
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, below which nothing is spoken; older uvicorns would have those of 1.0."""
MAX_HEAD = 64 << 10
"""Bytes of a request up to its body; and of what else is no body: what is said beside chunks, and behind them."""
UPGRADE = "a body cannot come with Upgrade: this gateway speaks HTTP/1.1 only, leave that header out"
KEEP_ALIVE = 15
"""Seconds without a request after which a connection is closed."""
SPARE = 256
"""File descriptors that are not for clients."""
BODIED = (b"content-length", b"transfer-encoding")
"""Headers of requests that have a body."""
PIPELINED = 32
"""Requests that a client may send before it is answered; each takes a hundred times the memory of its bytes."""
LEAST_READ = 4 << 10
"""Bytes a second that a client must read of an answer."""
SMALL = 8 << 10
"""Bytes that wait for what else is written in the same turn."""
UNSENT = 128 << 10
"""Bytes of answers that the system holds for one client; more would hide how slowly it reads."""


class Place(Struct, frozen=True):
    """Where to listen, and what is cut off; times in seconds. `timeout`: a request must have come by then, from the
    opening of its connection or its first byte; and so long may its answer be left unread, once buffers are full.
    `proxies`: addresses that are believed when they say for whom they ask (X-Forwarded-For). Raises `ConfigError` for
    what is no bound."""

    host: str
    port: int
    timeout: float = 15.0
    max_connections: int = 10_000
    grace: float = 30.0
    tls_cert: str | None = None
    tls_key: str | None = None
    proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_seconds("timeout", self.timeout, 0.1, 3_600.0)
        check_seconds("grace", self.grace, 0.0, 3_600.0)
        check_count("max_connections", self.max_connections, 1, 1_000_000)
        for proxy in self.proxies:
            if not _is_network(proxy):
                raise ConfigError(f"gateway: --proxy {proxy!r}: write an IP address, or a network such as 10.0.0.0/8")


def serve(gateway: AsgiGateway, place: Place, say: Callable[[str], None], file: SettingsFile | None = None) -> int:
    """Until TERM or Ctrl-C; returns the exit code. `say` is given lines for people; `file` is looked at once a second.
    Raises `ConfigError` for a place that is taken, or not there."""
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
        proxy_headers=bool(place.proxies),
        forwarded_allow_ips=list(place.proxies),
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(place.grace)),
        ssl_certfile=place.tls_cert,
        ssl_keyfile=place.tls_key,
        ssl_ciphers=CIPHERS,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificate {place.tls_cert} or its key cannot be used: {error}") from error
    try:
        _Server(config, gateway, say, place.timeout, file).run()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {place.host}:{place.port} ({error.strerror or error}): take another --host or --port"
        ) from error
    return 0


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        gateway: AsgiGateway,
        say: Callable[[str], None],
        timeout: float,
        file: SettingsFile | None,
    ) -> None:
        super().__init__(config)
        self._gateway, self._say, self._timeout, self._file = gateway, say, timeout, file

    async def startup(self, sockets: Any = None) -> None:
        """As uvicorn's, which gives a client a minute for the greetings of TLS, before it is counted as one."""
        config = self.config

        kind: Any = config.http_protocol_class  # uvicorn: a type, or its name
        connection = partial(kind, config=config, server_state=self.server_state, app_state={})
        server = await asyncio.get_running_loop().create_server(
            connection,
            config.host,
            config.port,
            backlog=config.backlog,
            ssl=config.ssl,
            ssl_handshake_timeout=self._timeout if config.ssl else None,
        )
        self.servers, self.started = [server], True
        for listening in server.sockets:
            host, port = listening.getsockname()[:2]
            scheme = "https" if config.ssl else "http"
            self._say(f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._file is not None and counter % 10 == 0 and (settings := self._file.changed()) is not None:
            self._gateway.gateway.change(settings)
        return await super().on_tick(counter)

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


class _Joined:
    """What an answer is written to: all of one turn of the loop goes out together. uvicorn writes the head by itself,
    which wakes the client for nothing, and costs as much as all else that is done for a small answer."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if len(data) > SMALL:
            self.flush()  # at once: whether the client reads must be known before more is handed in
        elif len(self._parts) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():  # else the client has gone meanwhile
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def waits(self) -> bool:
        """Something is still to go out."""
        return bool(self._parts)


class _Bounded(HttpToolsProtocol):
    """uvicorn waits for ever for what a client begins and does not finish."""

    max_connections: int
    timeout: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT)
        self._out = _Joined(transport, self.loop)
        self._head = 0
        self._in_head = True
        self._wrong = ""
        self._unread = 0
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
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._out.flush()
            self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
        elif self.timeout_keep_alive_task is None and self.is_idle():
            self._expect_request()  # what came need not be the beginning of one

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._in_head = 0, True
        self._expect_request()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what stands behind a body is not what a proxy has looked at as a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.parser.should_upgrade() and any(name in BODIED and value != b"0" for name, value in self.headers):
            self._wrong = UPGRADE  # the parser skips that body, and a call would be one without arguments
            raise ConnectionError(UPGRADE)
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, self._out)
        if len(self.pipeline) > PIPELINED:
            raise ConnectionError("too many requests that are not answered yet")  # ends the connection

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._received()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sending is None:
            self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sent()

    def send_400_response(self, msg: str) -> None:
        self._out.flush()
        super().send_400_response(self._wrong or msg)

    def shutdown(self) -> None:
        self._out.flush()
        super().shutdown()

    def is_idle(self) -> bool:
        """It asks for nothing, or has not said what."""
        cycle: object = self.cycle
        answered = not isinstance(cycle, RequestResponseCycle) or cycle.response_complete
        return answered and not self._out.waits

    def _make_room(self) -> None:
        idle = next((one for one in self.connections if isinstance(one, _Bounded) and one.is_idle()), self)
        idle.transport.abort()

    def _expect_request(self) -> None:
        if self._receiving is None:
            self._receiving = self.loop.call_later(self.timeout, self._too_slow)

    def _expect_reading(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._sending = self.loop.call_later(self.timeout, self._too_slow_to_read)

    def _too_slow_to_read(self) -> None:
        if self._unread - self.transport.get_write_buffer_size() < LEAST_READ * self.timeout:
            self.transport.abort()
        else:
            self._expect_reading()

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


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


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
