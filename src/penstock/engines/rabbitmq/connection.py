"""One AMQP connection on the loop thread: handshake, frames in and out, heartbeats, and the alarms of the server."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from pika import exceptions, spec

from penstock.engines.rabbitmq import faults, wire
from penstock.engines.rabbitmq.channel import TIMEOUT, Channel, Unanswered
from penstock.errors import BrokerUnavailable, PenstockError

A = TypeVar("A")
FRAME_MAX = 131_072
HIGH_WATER = 1 << 20
"""Bytes waiting to be sent, beyond which senders wait."""
CAPABILITIES = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "basic.nack": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class Login(Struct, frozen=True):
    """What a connection says of itself. `heartbeat` in seconds, 0 is the server's own. `url` is without password."""

    url: str
    user: str
    password: str
    virtual_host: str
    heartbeat: int
    name: str
    tls: ssl.SSLContext | None = None


class Connection(asyncio.Protocol):
    """Raises errors of ours only. When it is lost, `error` says why, and all that wait are told."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.server: Mapping[str, Any] = {}
        self.address = ""
        """`host:port`."""
        self.error: PenstockError | None = None
        self.alarm: str | None = None
        """Why the server accepts no messages now."""
        self.frame_max = FRAME_MAX
        self.patience = TIMEOUT
        """Seconds for an answer that every healthy node gives at once."""
        self.on_lost: list[Callable[[PenstockError], None]] = []
        self.on_stall: list[Callable[[], None]] = []
        """Called when this process did not come to its heartbeats, as soon as it runs again."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._control = Channel(self, 0)
        self._channels: dict[int, Channel] = {0: self._control}
        self._numbers = 0
        self._channel_max = 2047
        self._flowing = asyncio.Event()
        self._unblocked = asyncio.Event()
        self._flowing.set()
        self._unblocked.set()
        self._sent = self._received = self._looked = time.monotonic()
        self._beat: asyncio.TimerHandle | None = None
        self._interval = 0.0
        self._written = 0

    # -- opening and closing

    @classmethod
    async def open(cls, login: Login, host: str, port: int, timeout: float) -> Connection:
        """An open connection. Raises `BrokerUnavailable`, or `ConfigError` for what trying again cannot help."""
        connection = cls(login)
        connection.address = f"{host}:{port}"
        try:
            async with asyncio.timeout(timeout):
                await connection._loop.create_connection(lambda: connection, host, port, ssl=login.tls)
                await connection._greet()
        except TimeoutError as error:
            connection.abort(BrokerUnavailable(f"{login.url}: no answer within {timeout:.3g} s"))
            raise BrokerUnavailable(f"{login.url}: {host}:{port} did not answer within {timeout:.3g} s") from error
        except PenstockError as error:
            connection.abort(error)
            raise
        except Exception as error:
            ours = faults.of_driver(login.url, error)
            connection.abort(ours)
            raise ours from error
        except asyncio.CancelledError:
            connection.abort(BrokerUnavailable(f"{login.url}: not needed any more"))
            raise
        return connection

    async def _greet(self) -> None:
        login = self.login
        start = await self._control.expect((spec.Connection.Start,), wire.GREETING)
        self.server = start.server_properties
        response = f"\0{login.user}\0{login.password}"
        said = {"product": "penstock", "connection_name": f"{login.name}:{os.getpid()}", "capabilities": CAPABILITIES}
        tune = await self._control.call(
            spec.Connection.StartOk(client_properties=said, response=response), spec.Connection.Tune
        )
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        self._channel_max = tune.channel_max or 65_535
        beat = min(login.heartbeat, tune.heartbeat) if login.heartbeat and tune.heartbeat else tune.heartbeat
        beat = beat or login.heartbeat
        self.write(wire.method_frame(0, spec.Connection.TuneOk(self._channel_max, self.frame_max, beat)))
        await self._control.call(spec.Connection.Open(virtual_host=login.virtual_host), spec.Connection.OpenOk)
        self._interval = beat / 2
        if beat:
            self._looked = time.monotonic()
            self._beat = self._loop.call_later(self._interval, self._look)

    async def close(self) -> None:
        """Good-bye, heard by the server."""
        if self.error is None:
            await self._control.call(spec.Connection.Close(200, "", 0, 0), spec.Connection.CloseOk)
            self.abort(BrokerUnavailable(f"{self.login.url}: the connection is closed"))

    def abort(self, error: PenstockError) -> None:
        """Cut it, here and now."""
        self._end(error)
        if self._transport is not None:
            self._transport.abort()

    async def channel(self) -> Channel:
        """A new open channel."""
        for _ in range(self._channel_max):
            self._numbers = self._numbers % self._channel_max + 1
            if self._numbers not in self._channels:
                break
        channel = self._channels[self._numbers] = Channel(self, self._numbers)
        await self.answer(channel.call(spec.Channel.Open(), spec.Channel.OpenOk, timeout=self.patience))
        return channel

    async def answer(self, call: Awaitable[A]) -> A:
        """What a call returns that every healthy node answers at once. One that does not answer has lost us."""
        try:
            return await call
        except Unanswered as error:
            self.abort(error)
            raise

    def drop(self, channel: Channel) -> None:
        self._channels.pop(channel.number, None)

    # -- sending

    def write(self, data: bytes) -> None:
        """Raises why the connection is lost, if it is."""
        if self.error is not None or self._transport is None:
            raise self.error or BrokerUnavailable(f"{self.login.url}: not connected")
        self._transport.write(data)
        self._written += len(data)
        self._sent = time.monotonic()

    def backlog(self) -> tuple[int, int]:
        """How many bytes wait here to be sent, and how many were handed to the socket so far."""
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return waiting, self._written - waiting

    async def flow(self) -> None:
        """Wait until the socket takes more."""
        if not self._flowing.is_set():
            await self._flowing.wait()

    async def unblocked(self) -> None:
        """Wait until the server has no alarm, or the connection is lost."""
        await self._unblocked.wait()

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    def connection_lost(self, error: Exception | None) -> None:
        why = faults.of_driver(self.login.url, error or ConnectionResetError("the connection was closed"))
        self._end(why)

    def data_received(self, data: bytes) -> None:
        self._received = time.monotonic()
        buffer = self._rest + data if self._rest else data
        try:
            self._rest = buffer[self._read(buffer) :]
        except (exceptions.AMQPError, struct.error, ValueError, KeyError, IndexError) as error:
            self.abort(BrokerUnavailable(f"{self.login.url}: what came is not AMQP: {error!r}"))

    def _read(self, buffer: bytes) -> int:
        """Handle all whole frames; returns where the rest begins."""
        at, end = 0, len(buffer)
        unpack, channels = wire.FRAME_HEADER.unpack_from, self._channels
        while end - at >= 8:
            kind, number, size = unpack(buffer, at)
            after = at + 8 + size
            if after > end:
                break
            if buffer[after - 1] != wire.END or size > self.frame_max:
                raise ValueError("a frame without its end")
            channel = channels.get(number)
            if channel is not None:
                if kind == wire.METHOD:
                    self._method(channel, buffer, at, after)
                elif kind == wire.HEADER:
                    channel.on_header(buffer, at + 7, after - 1)
                elif kind == wire.BODY:
                    channel.on_body(buffer[at + 7 : after - 1])
            at = after
        return at

    def _method(self, channel: Channel, buffer: bytes, at: int, after: int) -> None:
        kind, payload = wire.method_id(buffer, at + 7), at + 7
        if kind == wire.DELIVER:
            channel.on_content(wire.read_deliver(buffer, payload))
        elif kind == wire.ACK:
            channel.on_confirm(*wire.read_confirm(buffer, payload), accepted=True)
        elif kind == wire.NACK:
            channel.on_confirm(*wire.read_confirm(buffer, payload), accepted=False)
        elif kind == wire.GET_OK:
            channel.on_content(wire.read_get_ok(buffer, payload))
        elif kind == wire.RETURN:
            channel.on_content(wire.read_return(buffer, payload))
        elif channel.number == 0:
            self._on_control(wire.read_method(buffer[at:after]))
        else:
            channel.on_method(wire.read_method(buffer[at:after]))

    def _on_control(self, method: Any) -> None:
        if isinstance(method, spec.Connection.Close):
            error = faults.of_close(self.login.url, method.reply_code, method.reply_text)
            self.write(wire.method_frame(0, spec.Connection.CloseOk()))
            self.abort(error)
        elif isinstance(method, spec.Connection.Blocked):
            self.alarm = method.reason or "an alarm"
            self._unblocked.clear()
        elif isinstance(method, spec.Connection.Unblocked):
            self.alarm = None
            self._unblocked.set()
        else:
            self._control.on_method(method)

    def _look(self) -> None:
        """Every half heartbeat: say that we live, and hear whether the server does."""
        now = time.monotonic()
        late = self._stalled(now)
        self._looked = now
        if not late and now - self._received > self._interval * 4:
            self.abort(BrokerUnavailable(f"{self.login.url}: no heartbeat for {now - self._received:.0f} s"))
            return
        if now - self._sent >= self._interval * 0.9:
            self.write(wire.BEAT)
        self._beat = self._loop.call_later(self._interval, self._look)

    def _stalled(self, now: float) -> bool:
        """We were stopped ourselves: what came meanwhile is unread."""
        late = self._beat is not None and now - self._looked > self._interval * 2
        for tell in self.on_stall if late else ():
            tell()
        return late

    def _end(self, error: PenstockError) -> None:
        if self.error is not None:
            return
        self._stalled(time.monotonic())
        self.error = error
        if self._beat is not None:
            self._beat.cancel()
        self._flowing.set()
        self._unblocked.set()
        for channel in list(self._channels.values()):
            channel.end(error)
        self._channels.clear()
        for tell in self.on_lost:
            tell(error)
