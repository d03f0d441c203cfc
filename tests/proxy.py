"""A TCP proxy between a client and a server, that fails as networks do.

with Proxy("127.0.0.1", 5672) as proxy:
    connect(proxy.port)
    proxy.cut()                       # every connection is reset
    proxy.cut_after(to_server=1000)   # ... once this many more bytes have passed that way
    with proxy.blackhole(): ...       # all is accepted, nothing is forwarded
    proxy.delay = 0.05                # seconds, each way
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

CHUNK = 1 << 16
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket that says RST and not FIN: what a client sees of a machine that went."""


class Proxy:
    """Listens on a port of its own, on a thread of its own. Used as a context manager."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.delay = 0.0
        self.passed = {"to_server": 0, "to_client": 0}
        """Bytes forwarded so far."""
        self.connections = 0
        """Connections taken so far."""
        self._target = (host, port)
        self._limits: dict[str, int] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def through(self, url: str) -> str:
        """The URL with the proxy in the server's place."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    def cut(self) -> None:
        """Reset every connection there is, now. New ones are taken."""
        self._call(self._cut())

    def cut_after(self, *, to_server: int | None = None, to_client: int | None = None) -> None:
        """Reset every connection, once, when this many more bytes have passed in that direction, and no more."""
        for way, count in (("to_server", to_server), ("to_client", to_client)):
            if count is not None:
                self._limits[way] = self.passed[way] + count

    @contextmanager
    def blackhole(self) -> Iterator[None]:
        """Accept connections and bytes, and forward nothing; what was held goes on at the end."""
        self._call(self._set_open(False))
        try:
            yield
        finally:
            self._call(self._set_open(True))

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, call: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(call, self._loop).result(10)

    async def _listen(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _set_open(self, value: bool) -> None:
        (self._open.set if value else self._open.clear)()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, away = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, away}
        self._writers |= ends
        ways = [
            asyncio.ensure_future(self._forward(reader, away, "to_server")),
            asyncio.ensure_future(self._forward(there, writer, "to_client")),
        ]
        self._tasks.update(ways)
        try:
            await asyncio.wait(ways)
        finally:
            self._tasks.difference_update(ways)
            self._writers -= ends
            for end in ends:
                end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                limit = self._limits.get(way)
                if limit is not None and self.passed[way] + len(data) >= limit:
                    data = data[: limit - self.passed[way]]
                    del self._limits[way]
                    writer.write(data)
                    self.passed[way] += len(data)
                    with suppress(OSError):
                        await writer.drain()
                    await self._cut()
                    return
                self.passed[way] += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
