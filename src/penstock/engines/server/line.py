"""The way by the caller's own thread: a connection on which blocking callers send and read themselves, which saves each
of them two changes of threads.

Of several threads that wait, one reads for all; when it has its answer, another takes over. Nothing suspends here, so
that who runs a coroutine over it runs it to its end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.engines.network.patience import Deadline, pauses
from penstock.engines.server.faults import Broken, translate
from penstock.engines.server.greeting import GREETING, hello
from penstock.engines.server.link import WINDOW, crowded
from penstock.engines.server.settings import Settings
from penstock.engines.server.wire import Tell
from penstock.errors import BrokerUnavailable, ConfigError
from penstock.protocol.frames import FrameError, Frames, frame
from penstock.protocol.refusals import error_of
from penstock.protocol.replies import Blocked, Failed, Refused, Told, Unblocked, Welcome, decode_reply, decode_welcome
from penstock.protocol.requests import Goodbye, Ping, Pong, StepRequest

CHUNK = 1 << 16
"""Bytes read at once: what is larger, the C library takes from the system for each read."""
QUIET = (BlockingIOError, ssl.SSLWantReadError, InterruptedError)


class Waiting:
    """One caller."""

    __slots__ = ("done", "error", "reply", "request")

    def __init__(self, request: object) -> None:
        self.request = request
        self.reply: Any = None
        self.error: BaseException | None = None
        self.done = False

    def over(self) -> bool:
        return self.done


class LineWire:
    """One connection. Thread-safe."""

    def __init__(self, connection: socket.socket, tell: Tell, timeout: float, heartbeat: float, bell: int) -> None:
        """`timeout`: seconds of silence for one who waits; `heartbeat` that of the broker; `bell`: a pipe that is rung
        to interrupt waiting steps."""
        self._socket = connection
        self._tell = tell
        self._poll = select.poll()
        """Of the one who reads."""
        self._poll.register(connection, select.POLLIN)
        self._poll.register(bell, select.POLLIN)
        self._timeout, self._heartbeat, self._bell = timeout, heartbeat, bell
        self._frames = Frames()
        self._pending: dict[int, Waiting] = {}
        self._lock = threading.Lock()
        """Guards `_pending`, `_reading` and `_others`."""
        self._changed = threading.Condition(self._lock)
        self._reading = False
        self._others = 0
        """How many wait for what another reads."""
        self._secured = isinstance(connection, ssl.SSLSocket)
        self._writing = threading.Lock()
        self.interrupt: Callable[[], None] = lambda: None
        self.lost = ""
        """Why it ended."""
        self._heard = self._pinged = time.monotonic()
        self._blocked = False

    async def exchange(self, number: int, request: object, seconds: float) -> Any:
        """See `penstock.engines.server.link.Wire`."""
        if self.lost:
            raise Broken(self.lost, sent=False)
        waiting = Waiting(request)
        now = time.monotonic()
        end = now + seconds
        with self._lock:
            if not self._pending:
                self._heard = now
            self._pending[number] = waiting
        try:
            self.send(frame(request), end)
            self._wait(waiting.over, end)
        except BaseException:
            with self._lock:
                self._pending.pop(number, None)
            raise
        if waiting.error is not None:
            raise waiting.error
        return waiting.reply

    def listen(self, told: threading.Event, seconds: float) -> bool:
        """Read until a push has set `told`; `False` after `seconds`, or when the connection ends."""
        with contextlib.suppress(TimeoutError, Broken):
            self._wait(lambda: told.is_set() or bool(self.lost), time.monotonic() + seconds)
        return told.is_set()

    def _wait(self, over: Callable[[], bool], end: float) -> None:
        """Read until it is over, or let another read. Raises `TimeoutError` at `end`."""
        with self._lock:
            while self._reading and not over():
                self._others += 1
                try:
                    if not self._changed.wait(max(0.0, end - time.monotonic())):
                        raise TimeoutError
                finally:
                    self._others -= 1
            if over():
                return
            self._reading = True
        try:
            while not over():
                self._read(end)
        finally:
            self._read_enough()

    def _read_enough(self) -> None:
        """Another may read now."""
        with self._lock:
            self._reading = False
            if self._others:
                self._changed.notify_all()
        if self.lost:
            self._retire()

    def _read(self, end: float) -> None:
        """Take what comes next, or see that nothing came for too long. Raises `TimeoutError` at `end`."""
        buffered = self._secured and isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not buffered and not self._sleep(end):
            return
        try:
            data = self._socket.recv(CHUNK)
        except QUIET:
            return
        except OSError as error:
            self.end(f"the connection was lost: {error.strerror or error}")
            return
        if not data:
            self.end("the connection was lost")
            return
        self._heard = time.monotonic()
        self._take(data)

    def _sleep(self, end: float) -> bool:
        """Until something comes (then it is true), the bell rings, or it is time for a sign."""
        now = time.monotonic()
        if now >= end:
            raise TimeoutError
        patience = 3 * self._heartbeat if self._blocked else self._timeout
        events = self._poll.poll(max(0.0, min(end - now, patience / 2.5)) * 1000)
        readable = False
        for descriptor, _ in events:
            if descriptor == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._bell, 4096)
                self.interrupt()
            else:
                readable = True
        if not readable:
            self._miss(patience, end)
        return readable

    def _miss(self, patience: float, end: float) -> None:
        """Nothing has come for a while: ask, or give it up. Raises `TimeoutError` at `end`, which comes first: another
        connection is of no use to who has no time left."""
        now = time.monotonic()
        if now >= end:
            raise TimeoutError
        if now - self._heard > patience:
            self.end(f"the broker has not answered for {patience:g} s")
        elif now - max(self._heard, self._pinged) > patience / 2.5:
            self._pinged = now
            self.send(frame(Ping()), now + 1.0)

    def _take(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._dispatch(decode_reply(body))
        except (FrameError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.end(f"the broker sent something that cannot be read: {error}")

    def _dispatch(self, reply: Any) -> None:
        kind = type(reply)
        if kind is Ping:
            self.send(frame(Pong()), time.monotonic() + 1.0)
        elif kind is Refused:
            self.end(f"the broker ended the connection: {reply.text}")
        elif kind is Told:
            self._tell(reply.reports)
        elif kind is Blocked or kind is Unblocked:
            self._blocked = kind is Blocked
        elif (number := getattr(reply, "number", None)) is not None:
            with self._lock:
                waiting = self._pending.pop(number, None)
                if waiting is None:
                    return
                if kind is Failed:
                    waiting.error = error_of(reply.code, reply.text)
                else:
                    waiting.reply = reply
                waiting.done = True
                if self._others:
                    self._changed.notify_all()

    def send(self, data: bytes, end: float) -> None:
        """Raises `Broken` when it cannot be sent by `end` (monotonic): half a frame would spoil the connection."""
        try:
            with self._writing:
                self._send(data, end)
        finally:
            if self.lost:
                self._retire()

    def _send(self, data: bytes | memoryview, end: float) -> None:
        if self.lost:
            raise Broken(self.lost, sent=False)
        size = len(data)
        while data:
            try:
                sent = self._socket.send(data)
                if sent == size:
                    return
                data = memoryview(data)[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._until_writable(end, len(data) < size)
            except OSError as error:
                self.end(f"the connection was lost: {error.strerror or error}")
                raise Broken(self.lost, sent=len(data) < size) from None

    def _until_writable(self, end: float, begun: bool) -> None:
        left = end - time.monotonic()
        if left <= 0:
            if begun:
                self.end("it took too long to send something: the broker does not read")
            raise TimeoutError
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        poll.poll(left * 1000)

    def tend(self) -> None:
        """Read what is there, if nobody does: a broker that is not answered for long takes us for dead."""
        with self._lock:
            if self._reading or self.lost:
                return
            self._reading = True
        try:
            with contextlib.suppress(*QUIET):
                data = self._socket.recv(CHUNK)
                if not data:
                    self.end("the connection was lost")
                else:
                    self._heard = time.monotonic()
                    self._take(data)
        except (OSError, Broken, TimeoutError) as error:
            self.end(f"the connection was lost: {error}")
        finally:
            self._read_enough()

    def waiting_steps(self) -> list[StepRequest]:
        with self._lock:
            found = [waiting.request for waiting in self._pending.values()]
        return [request for request in found if isinstance(request, StepRequest)]

    def end(self, reason: str) -> None:
        """No more of it: who waits is told."""
        with self._lock:
            if self.lost:
                return
            self.lost = reason or "the connection was lost"
            for waiting in self._pending.values():
                waiting.error, waiting.done = Broken(self.lost, sent=True), True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._retire()

    def forget(self) -> None:
        """Without a word: in a forked child, where it is the parent's."""
        self.lost = "it was the parent's"
        self._socket.close()

    def _retire(self) -> None:
        """Close what has ended, when nobody reads or writes it: its number may be another connection's a moment
        later."""
        if not self.lost or self._reading or not self._writing.acquire(blocking=False):
            return
        try:
            self._socket.close()
        finally:
            self._writing.release()


class Line:
    """The way: its connection is made when it is first needed, and anew when it is lost."""

    def __init__(self, settings: Settings, session: int, tell: Tell, back: Callable[[LineWire], None]) -> None:
        """`tell` is given the reports that the broker pushes; `back` is called with every new connection, before
        anything else is sent on it."""
        self._settings, self._session, self._tell, self._back = settings, session, tell, back
        self._wire: LineWire | None = None
        self._connecting = threading.Lock()
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(WINDOW):
            self._slots.put(None)
        self._bell = os.pipe()
        for end in self._bell:
            os.set_blocking(end, False)
        self._closed = False
        self.interrupted: Callable[[LineWire], None] = lambda wire: None

    async def connected(self, deadline: Deadline) -> LineWire:
        wire = self._wire
        if wire is not None and not wire.lost:
            return wire
        trouble: BaseException | None = None
        for pause in pauses():
            if not self._connecting.acquire(timeout=max(0.001, deadline.left())):
                break
            try:
                if self._wire is not None and not self._wire.lost:
                    return self._wire
                return self._connect(deadline)
            except (ConfigError, BrokerUnavailable) as error:
                trouble = error
            finally:
                self._connecting.release()
            if self._closed or deadline.left() <= pause:
                break
            time.sleep(pause)  # noqa: ASYNC251  (this is the way of those who block)
        if isinstance(trouble, BrokerUnavailable) or trouble is None:
            raise trouble or BrokerUnavailable(f"{self._settings.public}: not connected in time")
        raise trouble

    def _connect(self, deadline: Deadline) -> LineWire:
        if self._closed:
            raise BrokerUnavailable(f"{self._settings.public}: the engine is closed")
        refused: BaseException | None = None
        for host, port in self._settings.address.hosts:
            try:
                self._wire = self._greet(host, port, max(0.1, min(GREETING, deadline.left())))
                return self._wire
            except Exception as error:
                found = translate(error, self._settings.public)
                refused = refused or found
        assert refused is not None
        raise refused

    def _greet(self, host: str, port: int, patience: float) -> LineWire:
        settings = self._settings
        with contextlib.ExitStack() as undo:
            connection = _dial(settings, host, port, patience)
            undo.callback(connection.close)
            if settings.tls is not None and settings.socket is None:
                connection = settings.tls.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
                undo.callback(connection.close)
                connection.do_handshake()
            connection.sendall(frame(hello(settings, self._session)))
            welcome = _read_welcome(connection)
            connection.setblocking(False)
            undo.pop_all()
        wire = LineWire(connection, self._tell, settings.timeout, welcome.heartbeat, self._bell[0])
        wire.interrupt = lambda: self.interrupted(wire)
        self._back(wire)
        return wire

    async def enter(self, deadline: Deadline) -> None:
        try:
            self._slots.get(timeout=deadline.left())
        except queue.Empty:
            raise crowded(self._settings.public) from None

    def leave(self) -> None:
        self._slots.put(None)

    def tell(self, request: object) -> None:
        wire = self._wire
        if wire is not None and not wire.lost:
            with contextlib.suppress(Broken, TimeoutError):
                wire.send(frame(request), time.monotonic() + 1.0)

    @property
    def wire(self) -> LineWire | None:
        """The connection, if there is one now."""
        return None if self._wire is None or self._wire.lost else self._wire

    def interrupt(self) -> None:
        """Wake who waits for work. Safe in a signal handler."""
        with contextlib.suppress(OSError):  # it rings already, or is closed
            os.write(self._bell[1], b"\0")

    def tend(self) -> None:
        """Now and then, by somebody who may not block."""
        if self._wire is not None:
            self._wire.tend()

    def close(self) -> None:
        self._closed = True
        if self._wire is not None and not self._wire.lost:
            self.tell(Goodbye())
            self._wire.end("the engine was closed")
        for end in self._bell:
            os.close(end)

    def forget(self) -> None:
        """Without a word: in a forked child, where it is the parent's."""
        self._closed = True
        if self._wire is not None:
            self._wire.forget()
        for end in self._bell:
            os.close(end)


def _dial(settings: Settings, host: str, port: int, patience: float) -> socket.socket:
    if settings.socket is None:
        connection = socket.create_connection((host, port), patience)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(patience)
        connection.connect(settings.socket)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_welcome(connection: socket.socket) -> Welcome:
    frames = Frames()
    while True:
        data = connection.recv(CHUNK)
        if not data:
            raise Broken("the connection was lost before the broker had said who it is: is it TLS?", sent=False)
        for body in frames.feed(data):
            greeting: Welcome | Refused = decode_welcome(body)
            if isinstance(greeting, Refused):
                raise error_of(greeting.code, greeting.text)
            return greeting
