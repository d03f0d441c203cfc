"""One connection of a broker: frames in and out, and the bounds of both. It knows no verb."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any, Protocol, cast

import msgspec

from penstock.protocol.frames import HELLO_FRAME, MAX_FRAME, FrameError, Frames, frame
from penstock.protocol.replies import Refused
from penstock.protocol.requests import Goodbye, Hello, Ping, Pong, Request, decode_hello, decode_request

HELLO_PATIENCE = 10.0
"""Seconds to say who one is."""
FRAME_PATIENCE = 30.0
"""Seconds to complete a frame."""
STALLED = 30.0
"""Seconds for which a client may not read what it is sent."""
HIGH_WATER = 1 << 20
"""Bytes not read by the client from which on it is given no more."""
MAX_UNREAD = 32 << 20
"""Bytes not read by the client at which it is cut off."""
LINGER = 5.0
"""Seconds that a client which is cut off has to read why."""
TURN = 0.02
"""Seconds for which the requests of one client are worked off, before others have their turn."""
MAX_UNANSWERED = 4_096
"""Requests of one client that are not answered."""
MAX_UNANSWERED_BYTES = 32 << 20

OTHERS = "others have their turn"

log = logging.getLogger("penstock.broker")


class Session(Protocol):
    """What a signed-in client's requests go to."""

    def handle(self, request: Request, size: int) -> None: ...
    def lost(self, clean: bool) -> None:
        """The connection has ended: by the other side (`clean`), which so has ended or will come back at once, or
        because nothing was heard of it."""
        ...

    def writable(self) -> None:
        """It takes deliveries again."""
        ...

    def forget(self) -> None:
        """It leaves of its own will."""
        ...


class Host(Protocol):
    """The broker, as a connection sees it."""

    def greet(self, peer: Peer, hello: Hello) -> None:
        """Sign the client in; what it sends meanwhile waits."""
        ...

    def gone(self, peer: Peer) -> None: ...
    def came(self, peer: Peer) -> bool:
        """`False`: there are too many."""
        ...


class Peer(asyncio.Protocol):
    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(HELLO_FRAME)
        self._transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self.greeting = False
        self._backlog: list[memoryview] = []
        """Frames that wait: for the welcome, or because nothing is taken now."""
        self.address = ""
        self.common_name: str | None = None
        self.since = self.heard = self._loop.time()
        self._began: float | None = None
        """When the frame that is not complete began."""
        self._pinged = 0.0
        self.stalled: float | None = None
        """Since when the client does not read."""
        self._unanswered = self._unanswered_bytes = 0
        self._reasons: set[str] = set()
        """Why nothing is read."""
        self.received = self.sent = 0
        self.closed = False
        self._ending: float | None = None
        """Since when it is closed, though not all that was sent is read."""
        self._clean = True

    # The transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        name = transport.get_extra_info("peername")
        self.address = name[0] if isinstance(name, tuple) else "local"
        self.common_name = _common_name(transport.get_extra_info("ssl_object"))
        if not self._host.came(self):
            self.cut("unavailable", "the broker has as many connections as it may have (--max-connections)")

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        self.received += len(data)
        try:
            bodies = self._frames.feed(data)
            self._began = (self._began or self.heard) if self._frames.waiting and not bodies else None
            if self._frames.waiting and self._began is None:
                self._began = self.heard
        except FrameError as error:
            self.cut("malformed", str(error))
        else:
            self._work_off(bodies)

    def _work_off(self, bodies: list[memoryview]) -> None:
        """Take these frames, as long as any are to be taken."""
        if self._backlog and not self.greeting:
            self._backlog += bodies  # in their order
            return
        until = self._loop.time() + TURN
        try:
            for place, body in enumerate(bodies):
                if self.closed:
                    return
                if self._reasons:
                    self._backlog += bodies[place:]
                    return
                self._take(body)
                if self._loop.time() > until and place + 1 < len(bodies):
                    self.pause(OTHERS)
                    self._loop.call_soon(self.resume, OTHERS)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.cut("malformed", f"a frame that cannot be read: {error}")
        except Exception:  # whatever it is, it is this client's trouble only
            log.exception("%s: a request failed", self)
            self.cut("failed", "the broker could not do this; its log tells why")

    def _take(self, body: memoryview) -> None:
        if self.session is not None:
            self._handle(body)
        elif self.greeting:
            self._backlog.append(memoryview(bytes(body)))
            if len(self._backlog) > 64:
                self.cut("malformed", "more than 64 requests before the welcome")
        else:
            self.greeting = True
            self._host.greet(self, decode_hello(body))

    def _handle(self, body: memoryview) -> None:
        request = decode_request(body)
        kind = type(request)
        if kind is Ping:
            self.send(Pong())
        elif kind is Goodbye:
            if self.session is not None:
                self.session.forget()
            self.close()
        elif kind is not Pong and self.session is not None:
            self.session.handle(request, len(body))

    def welcome(self, session: Session) -> None:
        """It is signed in: read on."""
        self.session, self._frames.limit, self.greeting = session, MAX_FRAME, False
        backlog, self._backlog = self._backlog, []
        self._work_off(backlog)

    def eof_received(self) -> bool | None:
        return None  # close

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._backlog.clear()
        session, self.session = self.session, None
        if session is not None:
            session.lost(self._clean)
        self._host.gone(self)

    def pause_writing(self) -> None:
        self.stalled = self._loop.time()
        self.pause("it does not read")

    def resume_writing(self) -> None:
        self.stalled = None
        self.resume("it does not read")
        if self.session is not None:
            self.session.writable()

    # For who uses it.

    def send(self, reply: object) -> None:
        """Send it. The loop writes what one turn of it sends together."""
        transport = self._transport
        if self.closed or transport is None:
            return
        data = frame(reply)
        self.sent += len(data)
        transport.write(data)
        if self.stalled is not None and transport.get_write_buffer_size() > MAX_UNREAD:
            self.cut("stalled", f"{MAX_UNREAD >> 20} MiB were sent that are not read")

    def began(self, size: int) -> None:
        """A request of `size` bytes is to be answered."""
        self._unanswered += 1
        self._unanswered_bytes += size
        if self._unanswered >= MAX_UNANSWERED or self._unanswered_bytes >= MAX_UNANSWERED_BYTES:
            self.pause("too much is not answered")

    def answered(self, size: int) -> None:
        self._unanswered -= 1
        self._unanswered_bytes -= size
        if self._reasons and self._unanswered < MAX_UNANSWERED and self._unanswered_bytes < MAX_UNANSWERED_BYTES:
            self.resume("too much is not answered")

    @property
    def unanswered(self) -> int:
        return self._unanswered

    @property
    def age(self) -> float:
        """Seconds since it connected."""
        return self._loop.time() - self.since

    @property
    def unread(self) -> int:
        """Bytes that it has not read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def pause(self, reason: str) -> None:
        """Read nothing of it, so that TCP holds it up."""
        if not self._reasons and self._transport is not None and not self.closed:
            self._transport.pause_reading()
        self._reasons.add(reason)

    def resume(self, reason: str) -> None:
        if reason in self._reasons:
            self._reasons.discard(reason)
            if not self._reasons:
                # At once: who looks before it goes on must not take the time that it was not read for the client's.
                self.heard = self._loop.time()
                if self._began is not None:
                    self._began = self.heard
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take what waits, then what comes, unless there is a reason again."""
        if self._reasons or self.closed or self._transport is None:
            return
        backlog, self._backlog = self._backlog, []
        self._work_off(backlog)
        if not self._reasons and not self.closed:
            self._transport.resume_reading()

    def tick(self, now: float, heartbeat: float) -> None:
        """Now and then: is it there, and does it do its part?"""
        if self.closed:
            if self._ending is not None and now - self._ending > LINGER and self._transport is not None:
                self._transport.abort()
            return
        if self.session is None and not self.greeting and now - self.since > HELLO_PATIENCE:
            self.cut("unavailable", f"no hello within {HELLO_PATIENCE:g} s")
        elif self.stalled is not None and now - self.stalled > STALLED:
            self.cut("stalled", f"nothing that was sent was read for {STALLED:g} s")
        elif self._began is not None and now - self._began > FRAME_PATIENCE and not self._reasons:
            self.cut("malformed", f"a frame was not complete within {FRAME_PATIENCE:g} s")
        elif self._reasons:
            if self.stalled is None:  # it shall know that we are here, though we do not listen
                self.send(Ping())
        elif now - self.heard > 3 * heartbeat:
            self._clean = False
            self.cut("unavailable", f"nothing was heard for {3 * heartbeat:g} s")
        elif now - max(self.heard, self._pinged) >= heartbeat:
            self._pinged = now
            self.send(Ping())

    def cut(self, code: str, reason: str) -> None:
        """End the connection, say why, and log it."""
        if self.closed:
            return
        log.warning("%s is cut off: %s", self, reason)
        self.refuse(code, reason)

    def refuse(self, code: str, reason: str) -> None:
        """End the connection and say why."""
        if self.closed or self._transport is None:
            return
        self.closed, self._ending = True, self._loop.time()
        self._transport.write(frame(Refused(code, reason)))
        if self.stalled is None and code != "stalled":
            self._transport.close()
        else:
            self._transport.abort()

    def close(self) -> None:
        """End the connection when what was sent is read."""
        if not self.closed and self._transport is not None:
            self.closed, self._ending = True, self._loop.time()
            self._transport.close()

    def abort(self) -> None:
        """End the connection now, with all that it may have sent."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def __str__(self) -> str:
        return f"client {self.address}" if self.session is None else f"client {self.session}"


def _common_name(secured: Any) -> str | None:
    """The name in the client's certificate, which its authority has signed; `None` without one."""
    if not isinstance(secured, ssl.SSLObject | ssl.SSLSocket):
        return None
    certificate: dict[str, Any] = secured.getpeercert() or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return str(names[-1]) if names else None
