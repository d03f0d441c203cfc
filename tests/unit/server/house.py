"""A broker in this process, on a loop and a thread of its own; its bounds may be made small by a test. And a bare
client: a socket that sends and reads frames."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from argon2.profiles import CHEAPEST

from penstock.engines.server import ServerEngine, open_engine
from penstock.protocol.frames import Frames, frame
from penstock.protocol.replies import Refused, Reply, Welcome, decode_reply, decode_welcome
from penstock.protocol.requests import Hello
from penstock.server.access.book import Book
from penstock.server.access.passwords import Passwords
from penstock.server.access.rights import Permission
from penstock.server.broker import Broker
from penstock.server.listening import Listeners
from penstock.server.peer import Peer
from penstock.server.running import _loop_factory
from penstock.server.settings import Bind, BrokerSettings, Tls

T = TypeVar("T")
ADA, PASSWORD = "ada", "correct horse"
EVERYTHING = Permission("*", ".*", ".*", ".*")
PATIENCE = 10.0


def travelling_loop() -> Any:
    """A loop as brokers have it, whose time a test can put `ahead`, in seconds. Timers of uvloop do not notice."""
    with contextlib.closing(_loop_factory()()) as usual:
        kind = type(usual)

    def time(self: Any) -> float:
        return float(kind.time(self) + self.ahead)

    return type("Travelling", (kind,), {"ahead": 0.0, "time": time})()


class House:
    """A running broker. `ada` may do everything; others are let in with `permit`."""

    def __init__(self, folder: Path, *, tls: Tls | None = None, **settings: Any) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self.permit(ADA, EVERYTHING, tags=["administrator"])
        self._settings = BrokerSettings(data=folder, binds=(Bind("127.0.0.1", 0),), tls=tls, grace=2.0, **settings)
        self._loop = travelling_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="house", daemon=True)
        self.port = 0
        self.broker: Broker
        self.listeners: Listeners

    def permit(self, user: str, *permissions: Permission, tags: Sequence[str] = ()) -> None:
        """As the owner of the files, from aside."""
        book = Book(self.folder)
        try:
            if user not in book.snapshot.users:
                book.add_user(user, Passwords(CHEAPEST).hash(PASSWORD), tags)
            for permission in permissions:
                if permission.namespace not in (*book.snapshot.namespaces, "*"):
                    book.add_namespace(permission.namespace)
                book.permit(user, permission)
        finally:
            book.close()

    def url(self, user: str = ADA, namespace: str = "", password: str = PASSWORD, options: str = "") -> str:
        return f"penstock://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{namespace}{options}"

    def engine(self, user: str = ADA, **more: Any) -> ServerEngine:
        return open_engine(self.url(user, **more))

    def client(self, user: str = ADA, **hello: Any) -> Client:
        return Client(self.port, Hello(1, 1, "bare", user=user, secret=PASSWORD, **hello))

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the broker's loop."""
        done: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work(), self._loop)
        return done.result(PATIENCE)

    def do(self, work: Callable[[], T]) -> T:
        """Call a function on the broker's loop."""

        async def call() -> T:
            return work()

        return self.run(call)

    def time(self) -> float:
        """Of its loop."""
        return float(self._loop.time())

    def pass_seconds(self, seconds: float) -> None:
        """For all that the broker does by its loop's time; it has looked what is over when this returns."""

        def later() -> None:
            self._loop.ahead += seconds
            now = self._loop.time()
            for space in list(self.broker.spaces.values()):
                space.tick(now)
            for peer in list(self.broker.peers):
                peer.tick(now, self.broker.heartbeat)

        self.do(later)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._open)
        return self

    async def _open(self) -> None:
        self.broker = Broker(self._settings, lambda: None)
        self.listeners = Listeners(self._settings, lambda: Peer(self.broker))
        await self.listeners.open([])
        self.port = int(self.listeners.addresses[0].rpartition(":")[2])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.do(self.listeners.close)
        self.run(self.broker.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Client:
    """A bare client that has signed in. `welcome` is what it was told."""

    def __init__(self, port: int, hello: Hello, *, window: int | None = None) -> None:
        """`window`: bytes that its system keeps for it, about."""
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self._frames = Frames()
        self._bodies: list[bytes] = []
        self.send(hello)
        self.welcome: Welcome | Refused = decode_welcome(self._body())

    def send(self, *requests: object) -> None:
        self.socket.sendall(b"".join(map(frame, requests)))

    def read(self) -> Reply:
        """The next frame. Raises `EOFError` at the end of the connection."""
        return decode_reply(self._body())

    def read_until(self, kind: type[T]) -> T:
        """The next reply of that kind."""
        while not isinstance(reply := self.read(), kind):
            pass
        return reply

    def _body(self) -> bytes:
        while not self._bodies:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the broker has ended the connection")
            self._bodies += map(bytes, self._frames.feed(data))
        return self._bodies.pop(0)

    def reset(self) -> None:
        """End it as a machine does that is gone."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()
