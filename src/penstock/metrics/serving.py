"""`/metrics` over HTTP: one loop, few connections, and none of them for long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable

from penstock.errors import ConfigError
from penstock.metrics.place import MAX_HEAD, Place, Refused, answer, check
from penstock.metrics.text import Family, render

CONNECTIONS = 16
TIMEOUT = 10.0
"""Seconds for a whole exchange."""

Collect = Callable[[], Awaitable[Iterable[Family]]]

log = logging.getLogger("penstock.metrics")


class MetricsServer:
    """Answers `GET /metrics` with what `collect` finds."""

    def __init__(self, place: Place, collect: Collect) -> None:
        """Listens from now on. Raises `ConfigError` where it cannot."""
        self._place = place
        self._collect = collect
        self._open = 0
        self._collecting = asyncio.Lock()
        self.socket = _listening(place)

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    async def serve(self) -> None:
        """Until it is cancelled."""
        server = await asyncio.start_server(self._talk, sock=self.socket, limit=MAX_HEAD)
        async with server:
            await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                writer.write(await self._answered(reader))
                writer.write_eof()  # a child that was forked meanwhile has this connection, too
                await writer.drain()
        except (OSError, TimeoutError, EOFError):
            writer.transport.abort()
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answered(self, reader: asyncio.StreamReader) -> bytes:
        try:
            wanted = check((await reader.readuntil(b"\r\n\r\n"))[:-4], self._place)
        except asyncio.LimitOverrunError:
            return Refused("431 Request Header Fields Too Large", "that is too long").answer
        except Refused as refused:
            return refused.answer
        try:
            async with self._collecting:  # one after the other: scrapes must not press upon the broker
                body = render(await self._collect())
        except Exception as error:
            log.warning("metrics cannot be told: %s: %s", type(error).__name__, error)
            return Refused("503 Service Unavailable", "metrics cannot be read now; the log says why").answer
        whole = answer("200 OK", body)
        return whole if wanted else whole[: -len(body) or None]


class MetricsThread:
    """A `MetricsServer` on a thread of its own."""

    def __init__(self, place: Place, collect: Collect) -> None:
        """Listens from now on, and answers when it is started. Raises `ConfigError`."""
        self.server = MetricsServer(place, collect)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._main, name="penstock-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._serving.wait()

    @property
    def descriptors(self) -> list[int]:
        """What a forked child must not hold open: the port would stay taken."""
        return [self.server.socket.fileno()]

    def close(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(TIMEOUT)
        self.server.socket.close()

    def _main(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._serving.set()
        await self.server.serve()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _listening(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host, place.port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"metrics cannot be served on {place.host}:{place.port}: {error.strerror}: take another --metrics-port"
        ) from error
    return listener
