"""What the tests of Redis servers share: engines that are closed, steps that wait, a way that can be cut."""

import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from penstock.broker import Demand
from penstock.engines.redis import RedisEngine, open_engine
from penstock.message import VERSION, Message
from tests.servers import Server, redis_server

AT_ONCE = ("--repl-diskless-sync-delay", "0")
Open = Callable[..., RedisEngine]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with redis_server(tmp_path, *AT_ONCE) as one:
        yield one


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens engines, and closes them at the end."""
    engines: list[RedisEngine] = []

    def engine(url: str, **settings: Any) -> RedisEngine:
        engines.append(open_engine(url, **settings))
        return engines[-1]

    yield engine
    for one in engines:
        one.close()


def message(body: bytes = b"[]", **fields: Any) -> Message:
    return Message(version=VERSION, task="a.task", body=body, **fields)


def demand(wait: float = 0.0, limit: int = 100) -> Demand:
    return Demand(("default",), limit, "worker", lease=60.0, wait=wait)


def begun(engine: RedisEngine, call: Coroutine[Any, Any, Any]) -> "Future[Any]":
    future: Future[Any] = Future()

    def main() -> None:
        try:
            future.set_result(engine.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=main, daemon=True).start()
    return future


def publish(engine: RedisEngine, *batch: Message, timeout: float = 10.0) -> list[Any]:
    return list(engine.run(engine.broker.publish(batch, timeout)))


def taken(engine: RedisEngine, wait: float = 0.0) -> list[Any]:
    return list(engine.run(engine.broker.step([], demand(wait))).deliveries)


def command(engine: RedisEngine, *parts: str) -> Any:
    return engine.run(engine.link.command(*parts))


def opened_raw(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


class Cutter:
    """A way to the server that can be cut when an answer is on its way."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._armed = False
        self.cuts = 0

    def __enter__(self) -> "Cutter":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def cut_next_answer(self) -> None:
        """The next script is run, and its answer lost with the connection."""
        self._armed = True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        doomed = threading.Event()
        threading.Thread(target=self._back, args=(server, client, doomed), daemon=True).start()
        while data := _received(client):
            if self._armed and b"EVALSHA" in data:
                self._armed = False
                doomed.set()
            server.sendall(data)
        server.close()

    def _back(self, server: socket.socket, client: socket.socket, doomed: threading.Event) -> None:
        while data := _received(server):
            if doomed.is_set():
                self.cuts += 1
                break
            client.sendall(data)
        client.shutdown(socket.SHUT_RDWR)
        client.close()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except OSError:
        return b""
